//! What was executed, in one file that all applications append to: who is killed loses no count.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use http::Method;

/// Which request: no two of a trial are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id(u64);

impl Id {
    /// Set in the ids of POSTs.
    const POST: u64 = 1 << 63;

    /// The id of the request of this number.
    pub(crate) fn new(number: u64, is_post: bool) -> Self {
        Self(number | if is_post { Self::POST } else { 0 })
    }

    /// Whether it may run once only.
    pub(crate) fn is_post(self) -> bool {
        self.0 & Self::POST != 0
    }

    /// Its method.
    pub(crate) fn method(self) -> Method {
        if self.is_post() {
            Method::POST
        } else {
            Method::GET
        }
    }
}

impl Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Id {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = u64::from_str_radix(text, 16);
        number.map(Self).with_context(|| format!("no id: {text:?}"))
    }
}

/// Bytes of an entry: the id, the process, and nothing. Written by one call, so entries of several processes do not mix.
const ENTRY: usize = 16;

/// The end that an application writes to.
#[derive(Debug)]
pub(crate) struct Pen(File);

impl Pen {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        Ok(Self(file.with_context(|| {
            format!("cannot write {}", path.display())
        })?))
    }

    /// Writes down that this request begins to be executed here. The kernel has it when this returns.
    pub(crate) fn begins(&self, id: Id) -> std::io::Result<()> {
        let mut entry = [0; ENTRY];
        entry[..8].copy_from_slice(&id.0.to_le_bytes());
        entry[8..12].copy_from_slice(&std::process::id().to_le_bytes());
        (&self.0).write_all(&entry)
    }
}

/// What the trial reads. It goes on where it has stopped, so it may look often.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    read: u64,
    executions: HashMap<Id, u32>,
    processes: HashSet<u32>,
}

impl Ledger {
    /// The file at this path, which is made.
    pub(crate) fn at(path: PathBuf) -> anyhow::Result<Self> {
        Pen::open(&path)?;
        Ok(Self {
            path,
            read: 0,
            executions: HashMap::new(),
            processes: HashSet::new(),
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How often each request was begun, by now.
    pub(crate) fn executions(&mut self) -> anyhow::Result<&HashMap<Id, u32>> {
        self.read_on()?;
        Ok(&self.executions)
    }

    /// Whether the process of this id has begun anything by now.
    pub(crate) fn has_served(&mut self, process: u32) -> anyhow::Result<bool> {
        self.read_on()?;
        Ok(self.processes.contains(&process))
    }

    fn read_on(&mut self) -> anyhow::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // The rest of an entry that is just being written is read the next time.
        let (entries, _) = bytes.as_chunks::<ENTRY>();
        for entry in entries {
            let [id @ .., p0, p1, p2, p3, _, _, _, _] = *entry;
            *self
                .executions
                .entry(Id(u64::from_le_bytes(id)))
                .or_default() += 1;
            self.processes.insert(u32::from_le_bytes([p0, p1, p2, p3]));
        }
        self.read += (entries.len() * ENTRY) as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_pens_write_is_counted_together() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::at(folder.path().join("ledger")).unwrap();
        assert!(ledger.executions().unwrap().is_empty());
        let pens = [
            Pen::open(ledger.path()).unwrap(),
            Pen::open(ledger.path()).unwrap(),
        ];
        let (get, post) = (Id::new(7, false), Id::new(7, true));
        pens[0].begins(get).unwrap();
        assert_eq!(ledger.executions().unwrap().len(), 1);
        pens[1].begins(post).unwrap();
        pens[0].begins(post).unwrap();
        let executions = ledger.executions().unwrap();
        assert_eq!((executions[&get], executions[&post]), (1, 2));
        assert!(ledger.has_served(std::process::id()).unwrap());
        assert!(!ledger.has_served(0).unwrap());
    }

    #[test]
    fn an_id_survives_its_way_through_a_target() {
        for id in [Id::new(0, false), Id::new(41, true)] {
            assert_eq!(id.to_string().parse::<Id>().unwrap(), id);
        }
        assert!("favicon.ico".parse::<Id>().is_err());
    }
}
