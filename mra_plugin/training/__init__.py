"""Training on long documents: masked language modelling, tasks, distillation."""
