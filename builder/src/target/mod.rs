//! Commands that run on the target host: load, unload, status, inspect.
