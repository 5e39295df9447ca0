//! stub
/// stub
pub fn keep_lines(_old: &str, new: &str) -> String {
    new.to_owned()
}
