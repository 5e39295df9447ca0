//! Which entities of two builds of an object differ: the truth that lpbuild's answer is held against.

use std::collections::{BTreeMap, BTreeSet};

use super::names::parent;
use super::reading::{Kind, Reading, UNSURE};

/// What differs, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Functions on both sides that differ, and where; a piece counts as its function.
    pub functions: BTreeMap<String, String>,
    /// Data on both sides that differs, and where; `(SECTION)` for entries without a name.
    pub data: BTreeMap<String, String>,
    /// Sections in which something without a name differs that counts where it is used.
    pub inner: BTreeSet<String>,
    /// Only in the new object.
    pub added: BTreeSet<String>,
    /// Only in the old object.
    pub gone: BTreeSet<String>,
    /// Functions that refer to a variable that cannot be told from another one by its name.
    pub unsure: BTreeSet<String>,
    /// What each function or object refers to, in either object.
    pub mentions: BTreeMap<String, BTreeSet<String>>,
    /// Other names of what has several, and the name it goes by here.
    pub aliases: BTreeMap<String, String>,
}

impl Difference {
    /// The name something goes by here.
    pub fn own<'n>(&'n self, name: &'n str) -> &'n str {
        self.aliases.get(name).map_or(name, String::as_str)
    }

    /// Does nothing differ?
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.data.is_empty() && self.added.is_empty() && self.gone.is_empty()
    }

    /// Everything that differs, in one line.
    pub fn summary(&self) -> String {
        let list = |m: &BTreeMap<String, String>| m.keys().cloned().collect::<Vec<_>>().join(" ");
        let names = |s: &BTreeSet<String>| s.iter().cloned().collect::<Vec<_>>().join(" ");
        let parts = [
            ("functions", list(&self.functions)),
            ("data", list(&self.data)),
            ("added", names(&self.added)),
            ("gone", names(&self.gone)),
        ];
        let parts = parts.iter().filter(|p| !p.1.is_empty()).map(|(what, list)| format!("{what}: {list}"));
        let text = parts.collect::<Vec<_>>().join("; ");
        if text.is_empty() { "nothing differs".into() } else { text }
    }

    /// Does `from` refer to `to`, perhaps through other data?
    pub fn reaches(&self, from: &str, to: &str) -> bool {
        let (mut todo, mut seen) = (vec![from], BTreeSet::new());
        while let Some(next) = todo.pop() {
            for m in self.mentions.get(next).into_iter().flatten() {
                if m == to {
                    return true;
                }
                if !self.functions.contains_key(m) && seen.insert(m.as_str()) {
                    todo.push(m);
                }
            }
        }
        false
    }
}

type Contents = BTreeMap<String, Vec<Vec<String>>>;

/// The content of every entity, made once for an object that many others are compared with.
#[derive(Debug)]
pub struct Side {
    code: Contents,
    data: Contents,
    inner: Contents,
    mentions: BTreeMap<String, BTreeSet<String>>,
    aliases: BTreeMap<String, String>,
    /// Names of messages.
    messages: BTreeSet<String>,
}

/// Sections of messages. With another content it is another message, which is new, and who says it says something else.
const MESSAGES: &[&str] = &["__dyndbg", "__trace_printk_fmt"];

/// How the names of single ids begin (include/linux/btf_ids.h). What is refused is the set or list they are in.
pub const BTF_ID: &str = "__BTF_ID__";
/// What stands for them.
pub const BTF_IDS: &str = "(.BTF_ids)";

impl Side {
    /// Of a whole object.
    pub fn of(reading: &Reading) -> Self {
        let mut own = Self {
            code: Contents::new(),
            data: Contents::new(),
            inner: Contents::new(),
            mentions: BTreeMap::new(),
            aliases: BTreeMap::new(),
            messages: BTreeSet::new(),
        };
        for (name, key) in reading.aliases().filter(|(name, key)| name != key) {
            own.aliases.insert(parent(&name).to_owned(), parent(key).to_owned());
        }
        for (i, e) in reading.entities.iter().enumerate() {
            let mentions = reading.mentions(i).into_iter().map(|m| parent(&m).to_owned());
            own.mentions.entry(parent(&e.key).to_owned()).or_default().extend(mentions);
            if MESSAGES.contains(&&*reading.elf.sections[e.section].name) {
                own.messages.insert(e.key.clone());
            }
            let side = match e.kind {
                Kind::Code => &mut own.code,
                Kind::Data => &mut own.data,
                // What is referred to counts where it is used.
                Kind::Unnamed if e.is_used => &mut own.inner,
                Kind::Unnamed => &mut own.data,
            };
            side.entry(e.key.clone()).or_default().push(reading.content(i));
        }
        for list in own.code.values_mut().chain(own.data.values_mut()).chain(own.inner.values_mut()) {
            list.sort();
        }
        own
    }
}

/// Compares two objects.
pub fn compare(old: &Side, new: &Side) -> Difference {
    let old_side = old;
    let mut d = Difference { mentions: old.mentions.clone(), aliases: old.aliases.clone(), ..Difference::default() };
    d.aliases.extend(new.aliases.iter().map(|(a, b)| (a.clone(), b.clone())));
    for (key, more) in &new.mentions {
        d.mentions.entry(key.clone()).or_default().extend(more.iter().cloned());
    }
    let keys = old.inner.keys().chain(new.inner.keys());
    d.inner = keys.filter(|k| old.inner.get(*k) != new.inner.get(*k)).cloned().collect();
    for (old, new, is_code) in [(&old.code, &new.code, true), (&old.data, &new.data, false)] {
        for (key, b) in new {
            let own = if is_code { parent(key) } else { key };
            if is_code && b.iter().flatten().any(|line| line.contains(UNSURE)) {
                d.unsure.insert(own.to_owned());
            }
            let Some(a) = old.get(key) else {
                // A piece that is new is a change of its function.
                if own == key {
                    d.added.insert(own.to_owned());
                } else {
                    d.functions.insert(own.to_owned(), format!("{key} is new"));
                }
                continue;
            };
            let Some(why) = first_difference(a, b) else { continue };
            // Of several of one name, some may only have come or gone.
            match (is_code, only_in(b, a).is_empty(), only_in(a, b).is_empty()) {
                (false, true, false) => {
                    d.gone.insert(own.to_owned());
                    continue;
                }
                (false, false, true) => {
                    d.added.insert(own.to_owned());
                    continue;
                }
                _ => {}
            }
            if is_code {
                d.functions.entry(own.to_owned()).or_insert(why);
            } else if old_side.messages.contains(key) {
                other_message(key, a.len() == 1 && b.len() == 1, &mut d);
            } else if own.starts_with(BTF_ID) {
                d.data.insert(BTF_IDS.to_owned(), why);
            } else {
                d.data.insert(own.to_owned(), why);
            }
        }
        for key in old.keys().filter(|k| !new.contains_key(*k)) {
            let own = if is_code { parent(key) } else { key };
            if own == key {
                d.gone.insert(own.to_owned());
            } else {
                d.functions.insert(own.to_owned(), format!("{key} is gone"));
            }
        }
    }
    for name in d.added.clone() {
        d.functions.remove(&name);
    }
    for name in d.gone.clone() {
        d.functions.remove(&name);
    }
    d
}

/// A message has become another one.
fn other_message(name: &str, is_one: bool, d: &mut Difference) {
    d.added.insert(name.to_owned());
    d.gone.insert(name.to_owned());
    let says = d.mentions.iter().filter(|(_, m)| m.contains(name)).map(|(who, _)| who.clone());
    let says: Vec<String> = says.collect();
    match is_one {
        true => d.functions.extend(says.into_iter().map(|who| (who, format!("{name} is another message")))),
        // Which of them says the one that differs is not known.
        false => d.unsure.extend(says),
    }
}

/// What `a` has and `b` has not, or not as often.
fn only_in<'s>(a: &'s [Vec<String>], b: &[Vec<String>]) -> Vec<&'s Vec<String>> {
    let mut left: Vec<&Vec<String>> = b.iter().collect();
    let mut only = Vec::new();
    for content in a {
        match left.iter().position(|c| *c == content) {
            Some(at) => drop(left.swap_remove(at)),
            None => only.push(content),
        }
    }
    only
}

fn first_difference(a: &[Vec<String>], b: &[Vec<String>]) -> Option<String> {
    if a == b {
        return None;
    }
    if a.len() != b.len() {
        return Some(format!("{} of this name became {}", a.len(), b.len()));
    }
    let (a, b) = a.iter().zip(b).find(|(a, b)| a != b)?;
    let at = (0..a.len().max(b.len())).find(|i| a.get(*i) != b.get(*i))?;
    let line = |side: &[String]| side.get(at).map_or_else(|| "nothing".to_owned(), |l| l.chars().take(200).collect());
    Some(format!("line {at}: {} became {}", line(a), line(b)))
}
