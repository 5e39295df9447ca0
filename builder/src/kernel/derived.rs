//! What others work out of an image, kept with it: a build asks the same of one image several times.
//!
//! Input: a type, and how its value is made. Output: the one value of that type. Nothing is refused.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// One value of each type.
#[derive(Default)]
pub(super) struct Derived(Mutex<Vec<Arc<dyn Any + Send + Sync>>>);

impl Derived {
    /// The value of this type, made when it is first asked for.
    pub(super) fn get<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known().iter().find_map(|v| Arc::clone(v).downcast::<T>().ok()) {
            return found;
        }
        // Not under the lock: what is made may ask for something else.
        let made = Arc::new(make());
        known().push(Arc::clone(&made) as Arc<dyn Any + Send + Sync>);
        made
    }
}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Derived").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_for_each_type() {
        let derived = Derived::default();
        assert_eq!(*derived.get(|| 1u32), 1);
        assert_eq!(*derived.get(|| 2u32), 1);
        assert_eq!(*derived.get(|| 2u64 + u64::from(*derived.get(|| 3u32))), 3);
    }
}
