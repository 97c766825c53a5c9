"""Engines: where the arithmetic happens. The trainer knows them by `engine.interface.Engine` alone."""
