//! `Module.symvers` of a kernel's headers: who exports which symbol.
//!
//! Input: the text, a line per symbol: checksum, name, exporter, kind, namespace (Documentation/kbuild/modules.rst). Output: the
//! exporter of each name, `vmlinux` or the path of a module without `.ko`. Lines of another form are passed over; what is not
//! found is refused by whoever needs it.

use std::collections::HashMap;

/// Exporters by symbol.
#[derive(Clone, Debug, Default)]
pub struct Symvers(HashMap<Box<str>, Box<str>>);

impl Symvers {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Self {
        let mut all = HashMap::new();
        for line in text.lines() {
            let mut fields = line.split('\t').skip(1);
            if let (Some(name), Some(by)) = (fields.next(), fields.next()) {
                all.insert(name.into(), by.into());
            }
        }
        Self(all)
    }

    /// A module that is not the kernel's exports this; what is known of it already stays.
    pub fn add(&mut self, symbol: &str, by: &str) {
        self.0.entry(symbol.into()).or_insert_with(|| by.into());
    }

    /// Is a module of this name, as /sys/module has it, among the exporters?
    pub fn names(&self, module: &str) -> bool {
        let name = |by: &str| by.rsplit('/').next().unwrap_or(by).replace('-', "_");
        self.0.values().any(|by| name(by) == module)
    }

    /// Who exports a symbol.
    pub fn exporter(&self, symbol: &str) -> Option<&str> {
        self.0.get(symbol).map(|by| &**by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_symbol_has_its_exporter() {
        let text = "0x4c9d28b0\tphys_base\tvmlinux\tEXPORT_SYMBOL\t\n0x1\tnf_ct_put\tnet/netfilter/nf_conntrack\tEXPORT_SYMBOL_GPL\tNS\n\nodd\n";
        let found = Symvers::parse(text);
        assert_eq!(found.exporter("phys_base"), Some("vmlinux"));
        assert_eq!(found.exporter("nf_ct_put"), Some("net/netfilter/nf_conntrack"));
        assert_eq!(found.exporter("odd"), None);
        let mut found = found;
        found.add("mine", "own_module");
        found.add("phys_base", "own_module");
        assert_eq!((found.exporter("mine"), found.exporter("phys_base")), (Some("own_module"), Some("vmlinux")));
        assert!(found.names("nf_conntrack") && found.names("own_module") && !found.names("netfilter"));
    }
}
