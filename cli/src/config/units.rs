//! Quantities: sizes, times and counts. A size and a time carry their unit in the text, so that a file can be read aloud.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use super::text::{Text, deserialize_text, serialize_text};

/// A size in bytes, written `"256MiB"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteCount(u64);

/// The units of a size, largest first, so that the first which divides a size is the one to write it in.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteCount {
    /// Units for the defaults and bounds in code.
    pub(crate) const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// Like [`ByteCount::kib`].
    pub(crate) const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// Like [`ByteCount::kib`].
    pub(crate) const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The plain number of bytes.
    pub(crate) const fn bytes(self) -> u64 {
        self.0
    }
}

impl From<u64> for ByteCount {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl Text for ByteCount {
    const EXPECTED: &'static str = "a size with its unit, such as \"256MiB\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        let (count, unit) = split(text)?;
        let (_, factor) = SIZES
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or("the units are B, KiB, MiB, GiB, TiB, kB, MB, GB and TB")?;
        // TOML's and JSON's readers keep integers in 63 bits; sums of sizes then still fit in 64.
        count
            .checked_mul(*factor)
            .filter(|bytes| i64::try_from(*bytes).is_ok())
            .map(Self)
            .ok_or("it is too large")
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES
            .iter()
            .find(|(_, factor)| 0 < self.0 && self.0.is_multiple_of(*factor))
        {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A span of time, written `"30s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(pub(crate) Duration);

/// The units of a time in milliseconds, largest first.
const TIMES: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A year: any sum of a few of these and an `Instant` is one too.
const LONGEST_MS: u64 = 8_760 * 3_600_000;

impl Time {
    pub(super) const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }
}

impl Text for Time {
    const EXPECTED: &'static str = "a time with its unit, such as \"30s\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        let (count, unit) = split(text)?;
        let (_, factor) = TIMES
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or("the units are ms, s, m and h")?;
        let ms = count
            .checked_mul(*factor)
            .filter(|ms| *ms <= LONGEST_MS)
            .ok_or("it is longer than a year")?;
        Ok(Self(Duration::from_millis(ms)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match TIMES
            .iter()
            .find(|(_, factor)| 0 < ms && ms.is_multiple_of(u128::from(*factor)))
        {
            Some((unit, factor)) => write!(f, "{}{unit}", ms / u128::from(*factor)),
            None => write!(f, "{ms}s"),
        }
    }
}

/// Takes `"256 MiB"` apart. Whole numbers only: a smaller unit says what a fraction would.
fn split(text: &str) -> Result<(u64, &str), &'static str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    match unit.trim_start() {
        _ if digits == 0 => Err("it does not start with a number"),
        "" => Err("the unit is missing"),
        fraction if fraction.starts_with(['.', ',']) => {
            Err("whole numbers only; take the next smaller unit")
        }
        unit => Ok((count.parse().map_err(|_| "it is too large")?, unit)),
    }
}

/// How many of something: at least one, and few enough that it cannot be a slip of the keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) usize);

/// Beyond what any process holds of anything; it keeps products of counts inside 64 bits.
const MOST: usize = 1_000_000_000;

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

struct CountVisitor;

impl Visitor<'_> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 1 to {MOST}, without quotes")
    }

    fn visit_i64<E: Error>(self, count: i64) -> Result<Count, E> {
        match usize::try_from(count) {
            Ok(count @ 1..=MOST) => Ok(Count(count)),
            _ => Err(E::invalid_value(Unexpected::Signed(count), &self)),
        }
    }
}

/// A part of a whole, written `"75%"`: at least one hundredth, at most all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Percent(pub(crate) u8);

impl Text for Percent {
    const EXPECTED: &'static str = "a percentage from \"1%\" to \"100%\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        let (count, unit) = split(text)?;
        match (u8::try_from(count), unit) {
            (_, unit) if unit != "%" => Err("the unit is %"),
            (Ok(count @ 1..=100), _) => Ok(Self(count)),
            _ => Err(""),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

deserialize_text!(ByteCount, Time, Percent);
serialize_text!(ByteCount, Time, Percent);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_times_are_read_with_their_unit() {
        for (text, bytes) in [
            ("0B", 0),
            ("1B", 1),
            ("64KiB", 65_536),
            ("256MiB", 1 << 28),
            ("1 GiB", 1 << 30),
            ("2kB", 2_000),
            ("3TB", 3_000_000_000_000),
        ] {
            assert_eq!(ByteCount::read(text), Ok(ByteCount(bytes)), "{text}");
        }
        for (text, ms) in [
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("3600s", 3_600_000),
        ] {
            assert_eq!(
                Time::read(text),
                Ok(Time(Duration::from_millis(ms))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_wrong_quantity_is_refused_with_its_reason() {
        for (text, why) in [
            ("", "it does not start with a number"),
            ("MiB", "it does not start with a number"),
            ("-1MiB", "it does not start with a number"),
            ("256", "the unit is missing"),
            ("1.5GiB", "whole numbers only; take the next smaller unit"),
            (
                "256M",
                "the units are B, KiB, MiB, GiB, TiB, kB, MB, GB and TB",
            ),
            (
                "256mib",
                "the units are B, KiB, MiB, GiB, TiB, kB, MB, GB and TB",
            ),
            ("99999999999999999999B", "it is too large"),
            ("9999999999TiB", "it is too large"),
        ] {
            assert_eq!(ByteCount::read(text), Err(why), "{text}");
        }
        assert_eq!(Percent::read("75%"), Ok(Percent(75)));
        assert_eq!(Percent::read("75%").unwrap().to_string(), "75%");
        for (text, why) in [
            ("75", "the unit is missing"),
            ("75.5%", "whole numbers only; take the next smaller unit"),
            ("75B", "the unit is %"),
            ("0%", ""),
            ("101%", ""),
        ] {
            assert_eq!(Percent::read(text), Err(why), "{text}");
        }
        for (text, why) in [
            ("10", "the unit is missing"),
            ("10min", "the units are ms, s, m and h"),
            ("8761h", "it is longer than a year"),
        ] {
            assert_eq!(Time::read(text), Err(why), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_as_itself(bytes in 0..=u64::from(u32::MAX) * 4096, ms in 0..LONGEST_MS) {
            prop_assert_eq!(ByteCount::read(&ByteCount(bytes).to_string()), Ok(ByteCount(bytes)));
            let time = Time(Duration::from_millis(ms));
            prop_assert_eq!(Time::read(&time.to_string()), Ok(time));
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC*") {
            let _ = ByteCount::read(&text);
            let _ = Time::read(&text);
            let _ = Percent::read(&text);
        }
    }
}
