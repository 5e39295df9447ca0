//! Marks in the source of a patch (`LPB_PRE_APPLY` and others, runtime-kmod/include/lpbuild.h).
//!
//! Input: the section `.lpbuild.marks` of new objects, texts `KIND NAME` with a zero behind each. Output: the callbacks and the
//! addresses that are given back, beside what livepatch.toml and the command line say. Refused (LP2028): a mark that is not known, marks that
//! contradict each other or the rest, and an address that nothing can give back.

use crate::codes;
use crate::error::{Place, Problem};
use crate::plan::manifest::{Callback, is_identifier};
use crate::plan::{ObjectPair, Options};

/// The section.
pub const SECTION: &str = ".lpbuild.marks";
/// What only lpbuild names so.
const RESERVED: &str = ".lpbuild";
/// The kind of [`Options::given_back`].
const GIVEN_BACK: &str = "given-back";

/// The options of a patch with what its source says, and what is wrong with that.
pub fn applied(pairs: &[ObjectPair], options: &Options) -> (Options, Vec<Problem>) {
    let mut all = Marked { options: options.clone(), problems: Vec::new() };
    for pair in pairs {
        let sections = pair.new.image.sections.iter().filter(|s| s.name.starts_with(RESERVED));
        for section in sections {
            let place = || Place::object(&pair.name).in_section(&section.name);
            if section.name != SECTION || !section.relocs.is_empty() {
                all.refuse(place(), "this lpbuild does not know what is in it");
                continue;
            }
            for text in section.data.split(|b| *b == 0).filter(|t| !t.is_empty()) {
                match parse(text) {
                    Some((kind, name)) => all.add(&pair.name, kind, name, place()),
                    None => {
                        all.refuse(place(), format!("{:?} is no mark of it", String::from_utf8_lossy(text)));
                    }
                }
            }
        }
    }
    let callbacks = &all.options.callbacks;
    let takes_back = callbacks.pre_revert.is_some() || callbacks.post_revert.is_some();
    if let Some((object, name)) = all.options.given_back.first().filter(|_| !takes_back && !options.oneshot) {
        let what = "it is marked as given back, and the patch has neither a pre-revert nor a post-revert callback";
        all.refuse(Place::symbol(object, name), what);
    }
    (all.options, all.problems)
}

fn parse(text: &[u8]) -> Option<(&str, &str)> {
    let (kind, name) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    is_identifier(name).then_some((kind, name))
}

struct Marked {
    options: Options,
    problems: Vec<Problem>,
}

impl Marked {
    fn refuse(&mut self, place: Place, what: impl Into<String>) {
        self.problems.push(Problem::new(codes::LP2028, place, what));
    }

    fn add(&mut self, object: &str, kind: &str, name: &str, place: Place) {
        if kind == GIVEN_BACK {
            let mark = (object.to_owned(), name.to_owned());
            if !self.options.given_back.contains(&mark) {
                self.options.given_back.push(mark);
            }
            return;
        }
        let Some(callback) = Callback::ALL.into_iter().find(|c| c.name() == kind) else {
            return self.refuse(place, format!("{kind:?} is no mark that this lpbuild knows"));
        };
        if callback == Callback::PreRevert && self.options.oneshot {
            return self.refuse(place, format!("{name} is never called: the patch is oneshot"));
        }
        match self.options.callbacks.get(callback) {
            Some(other) if other != name => {
                let what = format!("{name} and {other} are both the {kind} callback");
                self.refuse(place, what);
            }
            _ => self.options.callbacks.set(callback, name.to_owned()),
        }
    }
}
