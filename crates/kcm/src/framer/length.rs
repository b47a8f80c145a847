//! Messages with a length field at a fixed place: as data, it covers half of all binary protocols.

use super::{Frame, Framer, Meta, Resume, Spread, Verdict, be, le};

/// A length field: `total = (field & mask) * unit + adjust`.
///
/// ```
/// use peyk_kcm::framer::{Framer, LengthField, Resume, Verdict};
/// let mut framer = LengthField::be(0, 4).plus(4); // four bytes, then so many
/// assert_eq!(framer.frame(b"\0\0\0\x02hi", &mut Resume::default()), Verdict::framed(6, 4));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LengthField {
    offset: usize,
    width: usize,
    little: bool,
    mask: u64,
    unit: u64,
    adjust: i64,
    min: u64,
    max: u64,
    multiple: u64,
    key: Option<(usize, usize, u64)>,
    checks: Vec<Check>,
    spread: Spread,
}

/// A byte that must have a value: `byte[offset] & mask` is one of `allowed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Position in the message.
    pub offset: usize,
    /// Bits that count.
    pub mask: u8,
    /// What they may be.
    pub allowed: &'static [u8],
}

impl LengthField {
    /// A big-endian field of `width` bytes (1 to 8) at `offset`, holding the length of the whole message.
    pub fn be(offset: usize, width: usize) -> LengthField {
        assert!((1..=8).contains(&width), "a length field has 1 to 8 bytes");
        assert!(offset <= 4096, "a length field lies within the first 4 KiB");
        LengthField {
            offset,
            width,
            little: false,
            mask: u64::MAX,
            unit: 1,
            adjust: 0,
            min: 0,
            max: u64::MAX,
            multiple: 1,
            key: None,
            checks: Vec::new(),
            spread: Spread::User,
        }
    }

    /// The same, little-endian.
    pub fn le(offset: usize, width: usize) -> LengthField {
        LengthField { little: true, ..LengthField::be(offset, width) }
    }

    /// Adds so many bytes to what the field says: the header, if the field does not count it.
    pub fn plus(self, adjust: i64) -> Self {
        LengthField { adjust, ..self }
    }

    /// Only these bits of the field are the length.
    pub fn mask(self, mask: u64) -> Self {
        LengthField { mask, ..self }
    }

    /// The field counts in units of so many bytes.
    pub fn unit(self, unit: u64) -> Self {
        LengthField { unit, ..self }
    }

    /// Shortest and longest whole message.
    pub fn within(self, min: u64, max: u64) -> Self {
        LengthField { min, max, ..self }
    }

    /// The field's value must be a multiple of this.
    pub fn multiple_of(self, multiple: u64) -> Self {
        LengthField { multiple: multiple.max(1), ..self }
    }

    /// A big-endian number that orders messages: place, bytes (up to 4), bits that count.
    pub fn key(self, offset: usize, width: usize, mask: u64) -> Self {
        LengthField { key: Some((offset, width.min(4), mask)), spread: Spread::Key, ..self }
    }

    /// A byte that must have one of these values.
    pub fn check(mut self, offset: usize, mask: u8, allowed: &'static [u8]) -> Self {
        self.checks.push(Check { offset, mask, allowed });
        self
    }

    /// Whether messages may be spread.
    pub fn spread_as(self, spread: Spread) -> Self {
        LengthField { spread, ..self }
    }

    /// Bytes that must be there before the length can be read.
    fn header(&self) -> usize {
        let key = self.key.map_or(0, |(offset, width, _)| offset + width);
        (self.offset + self.width).max(key)
    }

    /// The bits of the field that count; `None` if it is not all there.
    #[inline]
    fn value(&self, bytes: &[u8]) -> Option<u64> {
        let field = match bytes.get(self.offset..self.offset + 8) {
            // One load, whatever the width, where there are bytes enough.
            Some(eight) => {
                let cut = 64 - 8 * self.width as u32;
                let eight: [u8; 8] = eight.try_into().ok()?;
                if self.little {
                    u64::from_le_bytes(eight) << cut >> cut
                } else {
                    u64::from_be_bytes(eight) >> cut
                }
            }
            None => {
                let field = bytes.get(self.offset..self.offset + self.width)?;
                if self.little { le(field) } else { be(field) }
            }
        };
        Some(field & self.mask)
    }

    /// What the message is long by this value, 0 if less than nothing; `None` above the limit.
    #[inline]
    fn total(&self, value: u64) -> Option<u64> {
        let scaled = value.checked_mul(self.unit)?;
        let total = if self.adjust < 0 {
            scaled.saturating_sub(self.adjust.unsigned_abs())
        } else {
            scaled.checked_add(self.adjust.unsigned_abs())?
        };
        (total <= self.max.min(i64::MAX as u64)).then_some(total)
    }
}

impl Framer for LengthField {
    #[inline]
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        for check in &self.checks {
            if bytes.get(check.offset).is_some_and(|byte| !check.allowed.contains(&(byte & check.mask))) {
                return Verdict::broken("a fixed byte of the header has another value");
            }
        }
        let end = self.offset + self.width;
        let Some(value) = self.value(bytes) else { return Verdict::Need(end) };
        if self.multiple > 1 && !value.is_multiple_of(self.multiple) {
            return Verdict::broken("the length is no multiple of what it must be");
        }
        let Some(total) = self.total(value) else {
            return Verdict::too_big("the length exceeds the protocol's limit");
        };
        if total < self.min.max(end as u64) {
            return Verdict::broken("the length is below the size of the header");
        }
        let header = self.header();
        // The length may end before the key: then the message has none.
        let key = match self.key {
            Some((_, _, _)) if total < header as u64 => None,
            Some((offset, width, mask)) => match bytes.get(offset..offset + width) {
                Some(key) => Some((be(key) & mask) as u32),
                None => return Verdict::Need(header),
            },
            None => None,
        };
        Verdict::Len(Frame { total, meta: Meta { key, class: 0, header: end as u32 } })
    }

    fn frame_all(
        &mut self,
        bytes: &[u8],
        (most, longest): (usize, usize),
        resume: &mut Resume,
        lengths: &mut Vec<u32>,
    ) -> usize {
        if !self.checks.is_empty() || self.key.is_some() || self.multiple > 1 {
            return super::each_whole(self, bytes, (most, longest), resume, lengths);
        }
        let least = self.min.max((self.offset + self.width) as u64).max(1);
        let (mut rest, mut count) = (bytes, 0);
        while count < most
            && let Some(total) = self.value(rest).and_then(|value| self.total(value))
            && (least..=longest.min(rest.len()) as u64).contains(&total)
        {
            lengths.push(total as u32);
            (rest, count) = (&rest[total as usize..], count + 1);
        }
        bytes.len() - rest.len()
    }

    fn spread(&self) -> Spread {
        self.spread
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(self.clone())
    }
}
