//! From a bound patch directory to a signed-able kernel module.
