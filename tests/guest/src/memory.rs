//! Kernel memory by symbol, through /proc/kallsyms and /proc/kcore.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};

use crate::exactly;

/// Prints bytes as hex on one line.
pub fn kmem(args: &[String]) -> Result<()> {
    let [place, length] = exactly(args, "kmem SYMBOL[+OFFSET]|0xADDRESS LENGTH")?;
    let bytes = Kcore::open()?.read(resolve(place)?, number(length)? as usize)?;
    println!("{}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>());
    Ok(())
}

/// Everything from `_text` to `_etext`: nothing a patch leaves behind goes unseen. Cases do this dozens of times, so the names of
/// all symbols are read only when something differs.
pub fn ktext(args: &[String]) -> Result<()> {
    let [action, file] = exactly(args, "ktext save|diff FILE")?;
    let kcore = Kcore::open()?;
    let (start, length) = kcore.text()?;
    let now = kcore.read(start, length)?;
    match action {
        "save" => fs::write(file, now).with_context(|| file.to_string()),
        "diff" => {
            let saved = fs::read(file).with_context(|| file.to_string())?;
            if saved.len() != now.len() {
                bail!("{file} has {} bytes, the kernel's text {}", saved.len(), now.len());
            }
            if saved == now {
                println!("RESULT text_bytes_changed=0");
                return Ok(());
            }
            let changed: Vec<usize> = (0..now.len()).filter(|i| now[*i] != saved[*i]).collect();
            println!("RESULT text_bytes_changed={}", changed.len());
            let symbols = Symbols::read()?;
            let runs = changed.chunk_by(|a, b| a + 1 == *b).map(|run| (run[0], run.len()));
            let name = |(at, length)| format!("{}..{length}", symbols.name(start + at as u64));
            let places: Vec<String> = runs.take(40).map(name).collect();
            bail!("the kernel's text differs in {}", places.join(" "))
        }
        other => bail!("{other:?} is neither save nor diff"),
    }
}

struct Kcore {
    file: File,
    /// Address, size and file offset of every PT_LOAD.
    segments: Vec<(u64, u64, u64)>,
}

impl Kcore {
    fn open() -> Result<Self> {
        let file = File::open("/proc/kcore").context("/proc/kcore")?;
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0).context("ELF header of /proc/kcore")?;
        let (offset, size, count) = (le(&header, 32, 8), le(&header, 54, 2), le(&header, 56, 2));
        let mut segments = Vec::new();
        for i in 0..count {
            let mut entry = [0; 56];
            file.read_exact_at(&mut entry, offset + i * size).context("program header of /proc/kcore")?;
            if le(&entry, 0, 4) == 1 {
                segments.push((le(&entry, 16, 8), le(&entry, 40, 8), le(&entry, 8, 8)));
            }
        }
        Ok(Self { file, segments })
    }

    /// Address and size of the kernel's text. The lowest segment of the half of the kernel's image begins at `_text` (`kcore_text`,
    /// fs/proc/kcore.c); from there to `_etext` is the resource "Kernel code" (`code_resource`, arch/x86/kernel/setup.c).
    fn text(&self) -> Result<(u64, usize)> {
        let in_image = self.segments.iter().map(|(start, ..)| *start).filter(|start| *start >= 0xffff_ffff_8000_0000);
        let start = in_image.min().context("/proc/kcore has no segment of the kernel's image")?;
        let iomem = fs::read_to_string("/proc/iomem").context("/proc/iomem")?;
        let code =
            iomem.lines().find_map(|l| l.trim().strip_suffix(" : Kernel code")).context("no kernel code in iomem")?;
        let (first, last) = code.split_once('-').with_context(|| format!("{code:?} is no range"))?;
        let number = |text: &str| u64::from_str_radix(text, 16).with_context(|| format!("{text:?} is no address"));
        let length = number(last)? + 1 - number(first)?;
        if length < 4096 {
            bail!("/proc/iomem hides the addresses");
        }
        Ok((start, length as usize))
    }

    fn read(&self, address: u64, length: usize) -> Result<Vec<u8>> {
        let inside =
            |&&(start, size, _): &&(u64, u64, u64)| address >= start && address - start + length as u64 <= size;
        let (start, _, offset) = self
            .segments
            .iter()
            .find(inside)
            .with_context(|| format!("{address:#x}+{length:#x} is not in /proc/kcore"))?;
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, offset + (address - start))
            .with_context(|| format!("read {length:#x} bytes at {address:#x}"))?;
        Ok(bytes)
    }
}

fn le(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn number(text: &str) -> Result<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.with_context(|| format!("{text:?} is not a number"))
}

fn resolve(place: &str) -> Result<u64> {
    if place.starts_with("0x") {
        return number(place);
    }
    let (name, offset) = place.split_once('+').unwrap_or((place, "0"));
    let text = fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
    let mut found = Vec::new();
    for line in text.lines() {
        // ADDRESS TYPE NAME[TAB[MODULE]]: most lines are of other names.
        let Some((address, rest)) = line.split_once(' ') else { continue };
        if rest.get(2..).is_some_and(|n| n.strip_prefix(name).is_some_and(|r| r.is_empty() || r.starts_with('\t'))) {
            found.push(u64::from_str_radix(address, 16).context("an address in /proc/kallsyms")?);
        }
    }
    match found.as_slice() {
        [0] => bail!("/proc/kallsyms hides the addresses"),
        [address] => Ok(address + number(offset)?),
        [] => bail!("/proc/kallsyms has no {name}"),
        several => bail!("{} symbols are called {name}: {several:x?}", several.len()),
    }
}

/// Prints where a function or variable of the kernel is.
pub fn address(args: &[String]) -> Result<()> {
    let [name] = exactly(args, "address SYMBOL")?;
    println!("{:#x}", resolve_first(name)?);
    Ok(())
}

/// The first symbol of a name, where the kernel's own come before those of modules: in the list of a guest that was kept
/// ([`crate::init::SYMBOLS`]), else in the kernel's.
pub fn resolve_first(name: &str) -> Result<u64> {
    let kept = fs::read_to_string(crate::init::SYMBOLS);
    let text = kept.or_else(|_| fs::read_to_string("/proc/kallsyms")).context("/proc/kallsyms")?;
    let line = text.lines().find(|l| l.split_ascii_whitespace().nth(2) == Some(name));
    let address = line.and_then(|l| l.split_ascii_whitespace().next()).with_context(|| format!("no {name}"))?;
    u64::from_str_radix(address, 16).context("an address in /proc/kallsyms")
}

struct Symbols {
    sorted: Vec<(u64, String)>,
}

impl Symbols {
    fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
        let mut sorted = Vec::new();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            if let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next()) {
                sorted.push((
                    u64::from_str_radix(address, 16).context("an address in /proc/kallsyms")?,
                    name.to_string(),
                ));
            }
        }
        sorted.sort();
        Ok(Self { sorted })
    }

    fn name(&self, address: u64) -> String {
        match self.sorted[..self.sorted.partition_point(|(a, _)| *a <= address)].last() {
            Some((start, name)) => format!("{name}+{:#x}", address - start),
            None => format!("{address:#x}"),
        }
    }
}
