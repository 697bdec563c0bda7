//! What the table notes and the log writes down.

use super::labels::DEEPER;

/// A record's length on the disk. All are of one length, so that a damaged one does not hide those behind it.
pub(super) const LENGTH: usize = 24;

/// Epochs stay below this, so that one with its bit for `soft` is a number of 64 bits, and none can be exhausted.
pub(super) const EPOCHS: u64 = 1 << 62;

/// The first record of a file: its label says what the file is.
const MAGIC: u64 = u64::from_le_bytes(*b"S0PURGES");

/// The top bit of the byte that says what.
const SOFT: u8 = 0x80;

/// What was purged, or what else there is to say of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// This is a file of records, of this version.
    Header,
    /// This epoch may have been given out; and a snapshot ends here.
    Reached,
    /// This URL or prefix was purged.
    Label(u64),
    /// This tag was purged, and with it perhaps any response the tags of which are not all known.
    Tag(u64),
    /// A tag was purged, no matter which.
    AnyTag,
    /// A prefix with too many segments for a label was purged.
    DeepPrefix,
    /// Everything was purged.
    All,
    /// Labels that were purged up to this epoch were displaced from the bucket with this number.
    Displaced(u64),
    /// What was purged before this epoch is not known.
    Lost,
}

/// One of them at its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) epoch: u64,
    pub(super) what: What,
    pub(super) soft: bool,
}

impl Record {
    /// The first of every file. Its epoch is the format's version.
    pub(super) const HEADER: Self = Self {
        epoch: 1,
        what: What::Header,
        soft: false,
    };

    /// Epoch and label, what they are, and a checksum of that.
    pub(super) fn encode(&self) -> [u8; LENGTH] {
        let (kind, label) = match self.what {
            What::Header => (1, MAGIC),
            What::Reached => (2, 0),
            What::Label(label) => (3, label),
            What::Tag(label) => (4, label),
            What::AnyTag => (5, 0),
            What::DeepPrefix => (6, DEEPER),
            What::All => (7, 0),
            What::Displaced(bucket) => (8, bucket),
            What::Lost => (9, 0),
        };
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[8..16].copy_from_slice(&label.to_le_bytes());
        bytes[16] = kind | if self.soft { SOFT } else { 0 };
        let sum = checksum(&bytes);
        bytes[17..].copy_from_slice(&sum);
        bytes
    }

    /// `None`: the bytes are damaged, or of a version that we do not know.
    pub(super) fn decode(bytes: &[u8; LENGTH]) -> Option<Self> {
        let number = |from| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[from..from + 8]);
            u64::from_le_bytes(eight)
        };
        let (epoch, label) = (number(0), number(8));
        if checksum(bytes) != bytes[17..] || EPOCHS <= epoch {
            return None;
        }
        let what = match bytes[16] & !SOFT {
            1 if label == MAGIC => What::Header,
            2 => What::Reached,
            3 => What::Label(label),
            4 => What::Tag(label),
            5 => What::AnyTag,
            6 => What::DeepPrefix,
            7 => What::All,
            8 => What::Displaced(label),
            9 => What::Lost,
            _ => return None,
        };
        let soft = bytes[16] & SOFT != 0;
        Some(Self { epoch, what, soft })
    }
}

/// Of everything before it.
fn checksum(bytes: &[u8; LENGTH]) -> [u8; 7] {
    let mut first = [0; 7];
    first.copy_from_slice(&blake3::hash(&bytes[..17]).as_bytes()[..7]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = Record> {
        let what = (0_usize..8, any::<u64>()).prop_map(|(kind, label)| {
            [
                What::Reached,
                What::Label(label),
                What::Tag(label),
                What::AnyTag,
                What::DeepPrefix,
                What::All,
                What::Displaced(label),
                What::Lost,
            ][kind]
        });
        (0..EPOCHS, what, any::<bool>()).prop_map(|(epoch, what, soft)| Record {
            epoch,
            what,
            soft,
        })
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(record in record()) {
            prop_assert_eq!(Record::decode(&record.encode()), Some(record));
        }

        #[test]
        fn one_flipped_bit_is_noticed(record in record(), at in 0..LENGTH * 8) {
            let mut bytes = record.encode();
            bytes[at / 8] ^= 1 << (at % 8);
            prop_assert_eq!(Record::decode(&bytes), None);
        }
    }

    #[test]
    fn bytes_that_were_never_written_are_no_record() {
        assert_eq!(Record::decode(&[0; LENGTH]), None);
        assert_eq!(
            Record::decode(&Record::HEADER.encode()),
            Some(Record::HEADER)
        );
    }
}
