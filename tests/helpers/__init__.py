"""What several tests share: tiny models, small texts, made-up results, process worlds."""
