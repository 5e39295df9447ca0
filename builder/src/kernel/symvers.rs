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
    }
}
