//! Lines of text in a fixed buffer. `core::fmt` would add 20 KB and `__udivti3` to a runtime of 72 KB.

/// Longest line of the log and of `last_error`, in bytes.
pub const LINE: usize = 240;

/// A buffer that is appended to; what does not fit is cut off.
#[derive(Debug)]
pub struct Text<'a> {
    buf: &'a mut [u8],
    len: usize,
}

impl<'a> Text<'a> {
    /// An empty text in `buf`.
    pub fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, len: 0 }
    }
    /// Appends bytes. Not inlined: it is called in more than a hundred places.
    #[inline(never)]
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for &b in bytes {
            if let Some(slot) = self.buf.get_mut(self.len) {
                *slot = b;
                self.len += 1;
            }
        }
        self
    }
    /// Appends a string.
    pub fn str(&mut self, s: &str) -> &mut Self {
        self.bytes(s.as_bytes())
    }
    /// Appends a decimal number.
    pub fn dec(&mut self, v: u64) -> &mut Self {
        self.number(v, 10)
    }
    /// Appends a signed decimal number.
    pub fn int(&mut self, v: i64) -> &mut Self {
        if v < 0 {
            self.str("-");
        }
        self.number(v.unsigned_abs(), 10)
    }
    /// Appends a hexadecimal number with `0x`.
    pub fn hex(&mut self, v: u64) -> &mut Self {
        self.str("0x").number(v, 16)
    }
    /// Appends bytes as hexadecimal digits without separators.
    pub fn hex_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for &b in bytes {
            self.bytes(&[digit(b >> 4), digit(b & 15)]);
        }
        self
    }
    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or(&[])
    }
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Bytes left.
    pub fn room(&self) -> usize {
        self.buf.len() - self.len
    }

    fn number(&mut self, mut v: u64, base: u64) -> &mut Self {
        let mut digits = [0u8; 20];
        let mut used = 0;
        for slot in digits.iter_mut().rev() {
            *slot = digit((v % base) as u8);
            v /= base;
            used += 1;
            if v == 0 {
                break;
            }
        }
        for &d in digits.iter().skip(20 - used) {
            self.bytes(&[d]);
        }
        self
    }
}

fn digit(v: u8) -> u8 {
    if v < 10 { b'0' + v } else { b'a' + v - 10 }
}

/// The bytes before the first NUL.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or(&[])
}
