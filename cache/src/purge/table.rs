//! When what was purged last: a fixed table of epochs by hash, asked without a lock.

use std::array;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::labels::{DEEPER, Labels, MORE_TAGS};
use super::record::{Record, What};
use super::{Epoch, Judgement, Purged};

/// Buckets are allocated in segments of 16 KiB, each when it is first written to: who purges little pays little.
const SEGMENT_BITS: u32 = 8;

/// 2^18 buckets of 64 bytes: 16 MiB once about a million labels were purged. Of 100,000 labels purged since a response was
/// fetched, with six labels of its own, about one response in 300 is unsure.
const BUCKET_BITS: u32 = 18;

/// Labels that a bucket knows exactly: with the two numbers for those it does not, a line of a processor's cache.
const WAYS: usize = 3;

/// The latest purges of everything.
///
/// A bucket keeps the latest purges of [`WAYS`] labels, and of all that had to make room for them only the latest epoch, hard and
/// soft apart. So it always knows of a purge, and at times takes another label's for it: soft ones for soft ones, and hard ones as
/// something to be validated.
///
/// # Concurrency
/// Those who purge wait for each other. Those who ask wait for nobody, and have to be told of every purge that had *returned*
/// before they began; of one under way they may be told or not. It holds since
/// - a purge writes the table before it publishes its epoch, and who asks reads the epoch first. Whoever sees an epoch sees the
///   purges up to it, so that the answer holds for that epoch at least ([`Judgement::as_of`]);
/// - before a place in a bucket is given to another label, `displaced` says so; and who asks reads `displaced` after the places.
///   Either it still sees the old label there, or, as it saw some of what was written after, it sees `displaced`;
/// - a place is emptied before it changes its label, and who asks reads its epoch before and after its label: the two belong
///   together.
#[derive(Debug)]
pub(super) struct PurgeTable {
    segments: Box<[OnceLock<Box<[Bucket]>>]>,
    bucket_bits: u32,
    latest: AtomicU64,
    all: Scope,
    any_tag: Scope,
    deep_prefix: Scope,
    lost: AtomicU64,
    purging: Mutex<()>,
}

/// The latest epochs, hard and soft.
type Scope = [AtomicU64; 2];

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket {
    places: [Place; WAYS],
    displaced: Scope,
}

#[derive(Debug, Default)]
struct Place {
    label: AtomicU64,
    /// An epoch with the bit for `soft`; 0: the place is empty.
    at: AtomicU64,
}

impl Default for PurgeTable {
    fn default() -> Self {
        Self::new(BUCKET_BITS)
    }
}

impl PurgeTable {
    fn new(bucket_bits: u32) -> Self {
        let segments = 1 << bucket_bits.saturating_sub(SEGMENT_BITS);
        Self {
            segments: (0..segments).map(|_| OnceLock::new()).collect(),
            bucket_bits,
            latest: AtomicU64::new(0),
            all: Scope::default(),
            any_tag: Scope::default(),
            deep_prefix: Scope::default(),
            lost: AtomicU64::new(0),
            purging: Mutex::new(()),
        }
    }

    pub(super) fn latest(&self) -> Epoch {
        Epoch(self.latest.load(Ordering::Acquire))
    }

    /// Notes that all of this is purged now, softly where the bit says so, and returns the epoch of that.
    pub(super) fn purge(&self, marks: &[(What, bool)]) -> Epoch {
        let _purging = self.purging.lock();
        let epoch = self.latest.load(Ordering::Relaxed) + 1;
        for &(what, soft) in marks {
            self.note(Record { epoch, what, soft });
        }
        self.latest.store(epoch, Ordering::Release);
        Epoch(epoch)
    }

    /// What was noted in another process; in any order.
    pub(super) fn restore(&self, record: Record) {
        let _purging = self.purging.lock();
        self.note(record);
        if record.what != What::Header {
            raise(&self.latest, record.epoch);
        }
    }

    pub(super) fn judge(&self, born: Epoch, labels: &Labels) -> Judgement {
        let as_of = self.latest();
        let born = born.0;
        if born == as_of.0 {
            let purged = Purged::No;
            return Judgement { purged, as_of };
        }
        // One from an epoch that is still to come is from a history that was lost.
        let mut purged = if as_of.0 < born || born < self.lost.load(Ordering::Acquire) {
            Purged::Unsure
        } else {
            Purged::No
        };
        purged = purged.max(since(&self.all, born, Purged::Hard));
        for &label in labels.as_slice() {
            if purged == Purged::Hard {
                break;
            }
            purged = purged.max(match label {
                MORE_TAGS => since(&self.any_tag, born, Purged::Unsure),
                DEEPER => since(&self.deep_prefix, born, Purged::Unsure),
                label => self
                    .bucket(label)
                    .map_or(Purged::No, |bucket| bucket.judge(label, born)),
            });
        }
        Judgement { purged, as_of }
    }

    /// Everything it knows, as records, and last the epoch. Purges go on meanwhile; those that had returned before are among them.
    pub(super) fn each<E>(&self, mut tell: impl FnMut(Record) -> Result<(), E>) -> Result<(), E> {
        let (latest, lost) = (self.latest(), self.lost.load(Ordering::Acquire));
        let mut tell = |epoch, what, soft| match epoch {
            0 => Ok(()),
            epoch => tell(Record { epoch, what, soft }),
        };
        tell(lost, What::Lost, false)?;
        for (what, scope) in [
            (What::All, &self.all),
            (What::AnyTag, &self.any_tag),
            (What::DeepPrefix, &self.deep_prefix),
        ] {
            for (epoch, soft) in scope.iter().zip([false, true]) {
                tell(epoch.load(Ordering::Acquire), what, soft)?;
            }
        }
        for (segment, number) in self.segments.iter().zip(0_u64..) {
            let Some(buckets) = segment.get() else {
                continue;
            };
            for (bucket, within) in buckets.iter().zip(0_u64..) {
                // A bucket as it is between two purges.
                let (places, displaced) = {
                    let _purging = self.purging.lock();
                    (bucket.places(), load(&bucket.displaced))
                };
                for (label, epoch, soft) in places {
                    tell(epoch, What::Label(label), soft)?;
                }
                let number = (number << SEGMENT_BITS) + within;
                for (epoch, soft) in displaced.into_iter().zip([false, true]) {
                    tell(epoch, What::Displaced(number), soft)?;
                }
            }
        }
        tell(latest.0, What::Reached, false)
    }

    /// With `purging` held.
    fn note(&self, Record { epoch, what, soft }: Record) {
        let of = usize::from(soft);
        match what {
            What::Header | What::Reached => {}
            What::Label(label) => self.bucket_mut(label).note(label, epoch, soft),
            What::Tag(label) => {
                self.bucket_mut(label).note(label, epoch, soft);
                raise(&self.any_tag[of], epoch);
            }
            What::AnyTag => raise(&self.any_tag[of], epoch),
            What::DeepPrefix => raise(&self.deep_prefix[of], epoch),
            What::All => raise(&self.all[of], epoch),
            What::Displaced(bucket) => raise(&self.bucket_mut(bucket).displaced[of], epoch),
            What::Lost => raise(&self.lost, epoch),
        }
    }

    fn bucket(&self, label: u64) -> Option<&Bucket> {
        let (segment, within) = self.index(label);
        Some(&self.segments[segment].get()?[within])
    }

    fn bucket_mut(&self, label: u64) -> &Bucket {
        let (segment, within) = self.index(label);
        let empty = || (0..1 << SEGMENT_BITS).map(|_| Bucket::default()).collect();
        &self.segments[segment].get_or_init(empty)[within]
    }

    /// The label is a hash: any of its bits will do.
    fn index(&self, label: u64) -> (usize, usize) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "masked to fewer bits than any usize has"
        )]
        let bucket = (label & ((1 << self.bucket_bits) - 1)) as usize;
        (bucket >> SEGMENT_BITS, bucket & ((1 << SEGMENT_BITS) - 1))
    }
}

impl Bucket {
    fn judge(&self, label: u64, born: u64) -> Purged {
        let mut purged = Purged::No;
        for place in &self.places {
            let (noted, epoch, soft) = place.read();
            if noted == label && born < epoch {
                purged = purged.max(if soft { Purged::Soft } else { Purged::Hard });
            }
        }
        // After the places: see the table's concurrency.
        purged.max(since(&self.displaced, born, Purged::Unsure))
    }

    fn note(&self, label: u64, epoch: u64, soft: bool) {
        let places = self.places();
        let own = places
            .iter()
            .position(|&(noted, at, is_soft)| at != 0 && noted == label && is_soft == soft);
        if let Some(own) = own {
            return raise(&self.places[own].at, encode(epoch, soft));
        }
        // An empty place is of epoch 0.
        let mut oldest = 0;
        for (index, place) in places.iter().enumerate() {
            if place.1 < places[oldest].1 {
                oldest = index;
            }
        }
        let (_, displaced, displaced_soft) = places[oldest];
        if epoch < displaced {
            return raise(&self.displaced[usize::from(soft)], epoch);
        }
        raise(&self.displaced[usize::from(displaced_soft)], displaced);
        let place = &self.places[oldest];
        place.at.store(0, Ordering::Release);
        place.label.store(label, Ordering::Release);
        place.at.store(encode(epoch, soft), Ordering::Release);
    }

    fn places(&self) -> [(u64, u64, bool); WAYS] {
        array::from_fn(|index| self.places[index].read())
    }
}

impl Place {
    /// Label, epoch and whether softly.
    fn read(&self) -> (u64, u64, bool) {
        loop {
            let at = self.at.load(Ordering::Acquire);
            let label = self.label.load(Ordering::Acquire);
            // Another turn only where a purge has just changed it.
            if self.at.load(Ordering::Acquire) == at {
                return (label, at >> 1, at & 1 == 1);
            }
        }
    }
}

fn encode(epoch: u64, soft: bool) -> u64 {
    epoch << 1 | u64::from(soft)
}

fn load(scope: &Scope) -> [u64; 2] {
    [0, 1].map(|of| scope[of].load(Ordering::Acquire))
}

/// What a response born then is, if a purge of this scope was about it; `hard`, if that was a hard one.
fn since(scope: &Scope, born: u64, hard: Purged) -> Purged {
    match load(scope) {
        [latest, _] if born < latest => hard,
        [_, latest] if born < latest => Purged::Soft,
        _ => Purged::No,
    }
}

/// Epochs only grow. One writer at a time.
fn raise(epoch: &AtomicU64, to: u64) {
    if epoch.load(Ordering::Relaxed) < to {
        epoch.store(to, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(labels: &[u64]) -> Labels {
        Labels::from_slice(labels)
    }

    fn judge(table: &PurgeTable, born: Epoch, labels: &[u64]) -> Purged {
        table.judge(born, &of(labels)).purged
    }

    /// All in one bucket.
    fn crowded() -> PurgeTable {
        PurgeTable::new(0)
    }

    #[test]
    fn what_was_fetched_before_is_purged_and_what_was_fetched_after_is_not() {
        let table = PurgeTable::default();
        let before = table.latest();
        let purged = table.purge(&[(What::Label(7), false)]);
        assert_eq!(judge(&table, before, &[5, 7]), Purged::Hard);
        assert_eq!(judge(&table, before, &[5]), Purged::No);
        table.purge(&[(What::Label(5), true)]);
        assert_eq!(judge(&table, purged, &[7]), Purged::No);
        assert_eq!(judge(&table, purged, &[5, 7]), Purged::Soft);
        assert_eq!(judge(&table, before, &[5, 7]), Purged::Hard);
    }

    #[test]
    fn an_answer_holds_until_the_next_purge() {
        let table = PurgeTable::default();
        let born = table.latest();
        table.purge(&[(What::Label(7), false)]);
        let judgement = table.judge(born, &of(&[5]));
        assert_eq!(judgement.as_of, table.latest());
        table.purge(&[(What::Label(5), false)]);
        assert_ne!(judgement.as_of, table.latest());
    }

    #[test]
    fn everything_is_everything() {
        let table = PurgeTable::default();
        let first = table.latest();
        let second = table.purge(&[(What::All, true)]);
        assert_eq!(judge(&table, first, &[]), Purged::Soft);
        table.purge(&[(What::All, false)]);
        assert_eq!(judge(&table, second, &[]), Purged::Hard);
        assert_eq!(judge(&table, table.latest(), &[]), Purged::No);
    }

    #[test]
    fn who_has_more_tags_than_labels_is_unsure_of_each_purged_tag() {
        let table = PurgeTable::default();
        let born = table.latest();
        table.purge(&[(What::Label(9), false), (What::DeepPrefix, false)]);
        assert_eq!(judge(&table, born, &[MORE_TAGS, 5]), Purged::No);
        assert_eq!(judge(&table, born, &[DEEPER, 5]), Purged::Unsure);
        table.purge(&[(What::Tag(7), true)]);
        assert_eq!(judge(&table, born, &[MORE_TAGS, 5]), Purged::Soft);
        table.purge(&[(What::Tag(7), false)]);
        assert_eq!(judge(&table, born, &[MORE_TAGS, 5]), Purged::Unsure);
        assert_eq!(judge(&table, born, &[MORE_TAGS, 7]), Purged::Hard);
    }

    #[test]
    fn a_displaced_purge_leaves_doubt_and_only_about_what_it_may_have_been() {
        let table = crowded();
        let born = table.latest();
        table.purge(&[(What::Label(10), true)]);
        for label in 11..14 {
            table.purge(&[(What::Label(label), false)]);
        }
        // The soft purge of 10 has made room.
        assert_eq!(judge(&table, born, &[13]), Purged::Hard);
        assert_eq!(judge(&table, born, &[99]), Purged::Soft);
        let later = Epoch(born.0 + 1);
        assert_eq!(judge(&table, later, &[99]), Purged::No);
        table.purge(&[(What::Label(14), false)]);
        assert_eq!(judge(&table, later, &[99]), Purged::Unsure);
        assert_eq!(judge(&table, later, &[11]), Purged::Unsure);
    }

    #[test]
    fn an_epoch_that_was_never_given_out_is_unsure() {
        let table = PurgeTable::default();
        assert_eq!(judge(&table, Epoch(1), &[5]), Purged::Unsure);
    }

    #[test]
    fn who_asks_after_a_purge_returned_is_told_of_it_whatever_goes_on() {
        let table = crowded();
        std::thread::scope(|scope| {
            let noise = scope.spawn(|| {
                for turn in 0..20_000 {
                    table.purge(&[(What::Label(100 + turn % 7), turn % 2 == 0)]);
                }
            });
            while !noise.is_finished() {
                let born = table.latest();
                table.purge(&[(What::Label(50), false)]);
                assert!(Purged::Unsure <= judge(&table, born, &[50]));
                assert_eq!(judge(&table, table.latest(), &[]), Purged::No);
            }
        });
    }

    #[test]
    fn places_that_change_their_labels_are_never_taken_for_another() {
        let table = crowded();
        std::thread::scope(|scope| {
            // Labels and hardness belong together: what is even is purged softly only.
            let changes = scope.spawn(|| {
                for turn in 0..40_000_u64 {
                    let label = 2 + turn % 8;
                    table.purge(&[(What::Label(label), label % 2 == 0)]);
                }
            });
            while !changes.is_finished() {
                for bucket in table.segments[0].get().into_iter().flatten() {
                    for (label, epoch, soft) in bucket.places() {
                        assert!(epoch == 0 || soft == (label % 2 == 0));
                    }
                }
            }
        });
    }

    fn mark() -> impl Strategy<Value = (What, bool)> {
        let what = prop_oneof![
            8 => (2_u64..12).prop_map(What::Label),
            8 => (12_u64..20).prop_map(What::Tag),
            1 => Just(What::DeepPrefix),
            1 => Just(What::All),
        ];
        (what, any::<bool>())
    }

    /// What a list of all purges says. Labels from 12 on are tags.
    fn exact(purges: &[(u64, What, bool)], born: u64, labels: &[u64]) -> Purged {
        let about = |what| match what {
            What::Label(label) | What::Tag(label) => labels.contains(&label),
            _ => what == What::All,
        };
        let of =
            |&(epoch, what, soft): &(u64, What, bool)| match (born < epoch && about(what), soft) {
                (false, _) => Purged::No,
                (true, true) => Purged::Soft,
                (true, false) => Purged::Hard,
            };
        purges.iter().map(of).max().unwrap_or(Purged::No)
    }

    proptest! {
        #[test]
        fn nothing_escapes_and_without_displacement_nothing_else_is_hit(
            marks in proptest::collection::vec(mark(), 0..40),
            born in 0_u64..40,
            labels in proptest::collection::vec(2_u64..20, 0..5),
        ) {
            let (roomy, crowded) = (PurgeTable::new(6), PurgeTable::new(1));
            let mut purges = Vec::new();
            for &mark in &marks {
                let epoch = roomy.purge(&[mark]);
                prop_assert_eq!(crowded.purge(&[mark]), epoch);
                purges.push((epoch.0, mark.0, mark.1));
            }
            let born = Epoch(born.min(purges.len() as u64));
            let exact = exact(&purges, born.0, &labels);
            prop_assert_eq!(judge(&roomy, born, &labels), exact);
            // Told as it is, or as something that is to be validated, or of a soft purge too much.
            let told = judge(&crowded, born, &labels);
            prop_assert!(exact.min(Purged::Unsure) <= told && (told != Purged::Hard || exact == Purged::Hard));

            for table in [roomy, crowded] {
                let copy = PurgeTable::new(table.bucket_bits);
                let mut records = Vec::new();
                table.each(|record| { records.push(record); Ok::<_, ()>(()) }).unwrap();
                records.into_iter().for_each(|record| copy.restore(record));
                prop_assert_eq!(copy.judge(born, &of(&labels)), table.judge(born, &of(&labels)));
            }
        }
    }
}
