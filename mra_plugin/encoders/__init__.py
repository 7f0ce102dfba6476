"""Encoders as every command needs them: loaded, stretched, made exact, read with, measured."""
