//! A disk that can be cut off at any operation, and keeps of what was not synchronised whatever a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::files::Files;

/// A disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Simulated(Arc<Mutex<Inner>>);

/// What becomes of what was not synchronised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// All of it is there: the process was killed, the system was not.
    Kept,
    /// None of it is.
    Lost,
    /// Names are there, texts are not: files that were renamed too early are empty.
    NamesOnly,
    /// Texts are there, names are not.
    TextsOnly,
}

/// What an operation does that is told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power goes: nothing works from then on. The operation may have begun.
    Crash,
    /// It does nothing and says so; all others work.
    Refused,
    /// It is done, and the system says that it failed.
    DoneAndFailed,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    texts: BTreeMap<u64, Text>,
    names: BTreeMap<PathBuf, u64>,
    synced_names: BTreeMap<PathBuf, u64>,
    directories: BTreeSet<PathBuf>,
    operations: usize,
    fault: Option<(usize, Fault)>,
    is_off: bool,
}

#[derive(Clone, Debug, Default)]
struct Text {
    now: String,
    synced: String,
}

impl Unsynced {
    /// Every fate.
    pub const ALL: [Self; 4] = [Self::Kept, Self::Lost, Self::NamesOnly, Self::TextsOnly];
}

impl Simulated {
    /// A disk on which one operation, counted from 0 over those that change something, fails.
    pub fn failing_at(operation: usize, fault: Fault) -> Self {
        let disk = Self::default();
        disk.lock().fault = Some((operation, fault));
        disk
    }

    /// Whether the operation that was to fail has been reached.
    pub fn has_failed(&self) -> bool {
        let inner = self.lock();
        inner.fault.is_some_and(|(at, _)| inner.operations > at)
    }

    /// The disk as the next start finds it. Nothing fails there.
    pub fn after_power_loss(&self, unsynced: Unsynced) -> Self {
        let inner = self.lock().clone();
        let keeps_names = matches!(unsynced, Unsynced::Kept | Unsynced::NamesOnly);
        let keeps_texts = matches!(unsynced, Unsynced::Kept | Unsynced::TextsOnly);
        let names = if keeps_names { inner.names } else { inner.synced_names };
        let text = |text: Text| if keeps_texts { text.now } else { text.synced };
        let texts = inner.texts.into_iter().map(|(id, each)| (id, text(each)));
        let texts = texts.map(|(id, text)| (id, Text { now: text.clone(), synced: text })).collect();
        let synced_names = names.clone();
        let directories = inner.directories;
        Self(Arc::new(Mutex::new(Inner { texts, names, synced_names, directories, ..Inner::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// One operation that changes something; `partly` is what may have been done of it when the power goes.
    fn operate(
        &self,
        whole: impl FnOnce(&mut Inner) -> io::Result<()>,
        partly: impl FnOnce(&mut Inner),
    ) -> io::Result<()> {
        let inner = &mut *self.lock();
        if inner.is_off {
            return Err(io::Error::other("no power"));
        }
        let number = inner.operations;
        inner.operations += 1;
        match inner.fault.filter(|(at, _)| *at == number) {
            None => whole(inner),
            Some((_, Fault::Refused)) => Err(io::ErrorKind::StorageFull.into()),
            Some((_, Fault::DoneAndFailed)) => whole(inner).and(Err(io::Error::other("input/output error"))),
            Some((_, Fault::Crash)) => {
                inner.is_off = true;
                partly(inner);
                Err(io::Error::other("no power"))
            }
        }
    }
}

impl Inner {
    fn put(&mut self, path: &Path, text: &str) {
        // A new inode each time: the store never writes into a file that has its final name.
        let id = self.texts.len() as u64;
        self.texts.insert(id, Text { now: text.to_owned(), synced: String::new() });
        self.names.insert(path.to_owned(), id);
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Files for Simulated {
    fn read(&self, path: &Path) -> io::Result<String> {
        let inner = self.lock();
        let id = inner.names.get(path).ok_or_else(missing)?;
        Ok(inner.texts[id].now.clone())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let inner = self.lock();
        let inside = inner.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    fn make_directory(&mut self, directory: &Path) -> io::Result<()> {
        let make = |inner: &mut Inner| {
            inner.directories.insert(directory.to_owned());
        };
        self.operate(
            |inner| {
                make(inner);
                Ok(())
            },
            make,
        )
    }

    fn write(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let half = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
        self.operate(
            |inner| {
                inner.put(path, text);
                Ok(())
            },
            |inner| inner.put(path, &text[..half]),
        )
    }

    fn sync(&mut self, path: &Path) -> io::Result<()> {
        let sync = |inner: &mut Inner| {
            let id = *inner.names.get(path).ok_or_else(missing)?;
            inner.texts.entry(id).and_modify(|text| text.synced = text.now.clone());
            Ok(())
        };
        self.operate(sync, |_| {})
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let rename = |inner: &mut Inner| {
            let id = inner.names.remove(from).ok_or_else(missing)?;
            inner.names.insert(to.to_owned(), id);
            Ok(())
        };
        self.operate(rename, |inner| drop(rename(inner)))
    }

    fn sync_directory(&mut self, directory: &Path) -> io::Result<()> {
        let sync = |inner: &mut Inner| {
            let is_inside = |path: &Path| path.parent() == Some(directory);
            inner.synced_names.retain(|path, _| !is_inside(path));
            let inside = inner.names.iter().filter(|(path, _)| is_inside(path));
            inner.synced_names.extend(inside.map(|(path, id)| (path.clone(), *id)));
            Ok(())
        };
        self.operate(sync, |_| {})
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let remove = |inner: &mut Inner| inner.names.remove(path).map(drop).ok_or_else(missing);
        self.operate(remove, |inner| drop(remove(inner)))
    }
}
