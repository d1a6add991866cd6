//! `rackhand audit export`: the sealed trail as files that an auditor checks without Rackhand.
//!
//! `docs/audit/README.md` describes the folder. It grows by parts that never change: a part gets its name when it is
//! whole, so that an export that was interrupted costs one part at most. Where to go on is read from the last line of
//! the last part.

mod note;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use rackhand_schema::{
    audit::{Checkpoint, CheckpointPage, PublicKeys, Tree},
    merkle,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use self::note::Signers;
use crate::{
    client::Client,
    error::{Failure, Result, help},
    output::{Output, counted, moment, say},
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write the audit trail and its signed checkpoints into a folder, to be verified offline. What is there already
    /// stays as it is; only what is new is added. Requires the role admin of the fleet.
    #[command(after_help = help!("audit export --out trail"))]
    Export(Export),
}

#[derive(Debug, Args)]
pub struct Export {
    /// The folder; created if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// The kind of the event that says that a month of `lines` was dropped.
const DROPPED: &str = "trail.lines_dropped";
/// Items of one answer: the API's maximum.
const PAGE: usize = 1000;
/// Answers in one part.
const ANSWERS: usize = 5;

/// What an export has added.
#[derive(Debug, Serialize)]
struct Exported {
    /// Names the deployment.
    log: String,
    folder: PathBuf,
    trees: Vec<Added>,
}

#[derive(Debug, Serialize)]
struct Added {
    tree: Tree,
    checkpoints: usize,
    records: usize,
    /// The number of the newest checkpoint in the folder.
    newest: Option<u64>,
    /// The newest signed one that the records in the folder match.
    head: Option<Checkpoint>,
    /// Where they match only from this one on: what came before it is no longer kept.
    from: Option<u64>,
}

pub async fn run(verb: Verb, client: &Client, out: Output) -> Result<()> {
    let Verb::Export(Export { out: folder }) = verb;
    // Whoever may not export gets no folder either.
    let first = client.get(&["v1", "audit", Tree::Audit.as_str(), "checkpoints"]).query("limit", "1");
    first.send::<CheckpointPage>().await?;
    let _lock = lock(&folder)?;
    keys(client, &folder).await?;
    let mut trees = Vec::new();
    for tree in Tree::ALL {
        trees.push(export(client, tree, &folder.join(tree.as_str())).await?);
    }
    // Once more: a key that has signed one of these checkpoints is published by now.
    let keys = keys(client, &folder).await?;
    let dropped = dropped(&folder.join(Tree::Audit.as_str()))?;
    for added in &mut trees {
        let (tree, signers) = (folder.join(added.tree.as_str()), Signers::of(&keys, added.tree));
        added.head = head(&tree, &signers, None)?;
        if added.head.is_none() && added.tree == Tree::Lines && dropped.is_some() {
            added.head = head(&tree, &signers, dropped)?;
            added.from = dropped.filter(|_| added.head.is_some());
        }
    }
    let exported = Exported { log: keys.log, folder, trees };
    let name = exported.folder.display().to_string();
    out.one(&exported, &name, || render(&exported))?;
    say(format!(
        "signatures were checked with the keys that this control plane shows. Verify the folder offline with \
         docs/audit/auditor.py from Rackhand's source: `python3 auditor.py {name}`. Keep the newest checkpoint \
         elsewhere, too: it shows later whether the end was cut off"
    ));
    Ok(())
}

fn render(exported: &Exported) -> String {
    let mut text = format!("log          {}\nfolder       {}\n", exported.log, exported.folder.display());
    for Added { tree, checkpoints, records, newest, head, from } in &exported.trees {
        let sealed = match (newest, head) {
            (None, _) => "nothing sealed yet".to_owned(),
            (Some(newest), None) => format!("the records match no signed checkpoint up to {newest}"),
            (Some(newest), Some(head)) => {
                let matched =
                    format!("{} match checkpoint {} of {}", head.size, head.number, moment(&head.at));
                let beyond = match from {
                    Some(from) => format!(
                        "{matched}, from checkpoint {from} on: the months before are no longer kept. Verify with \
                         --from and the line of checkpoint {from}"
                    ),
                    None => matched,
                };
                match *newest == head.number {
                    true => beyond,
                    false => format!("{beyond}, and none beyond it up to {newest}"),
                }
            }
        };
        text.push_str(&format!(
            "{:<12} {} and {} added; {sealed}\n",
            tree.as_str(),
            counted(*records, "record"),
            counted(*checkpoints, "checkpoint"),
        ));
    }
    text
}

/// One export into a folder at a time.
fn lock(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder)
        .map_err(|source| Failure::file(format!("cannot create {}", folder.display()), source))?;
    let path = folder.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(|source| Failure::file(format!("cannot open {}", path.display()), source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(Failure::Conflict(format!("another export into {} is running", folder.display()))),
    }
}

/// Fetches the public keys. Keys that were published once stay so: where one is missing, this is another log.
async fn keys(client: &Client, folder: &Path) -> Result<PublicKeys> {
    let path = folder.join("keys.json");
    let published: PublicKeys = client.get(&["v1", "audit", "keys"]).anonymous().await?;
    match fs::read_to_string(&path) {
        Ok(text) => {
            let known: PublicKeys = parse(&text, &path)?;
            let kept = |key: &str| published.checkpoints.iter().any(|there| there.vkey == key);
            if known.log != published.log || !known.checkpoints.iter().all(|key| kept(&key.vkey)) {
                return Err(Failure::Conflict(format!(
                    "{} holds the log {}; {} publishes the log {} with other keys. Nothing was written",
                    folder.display(),
                    known.log,
                    client.server(),
                    published.log
                )));
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(Failure::file(format!("cannot read {}", path.display()), source)),
    }
    let mut part = Part::begin(path)?;
    part.add(&line(&published)?)?;
    part.finish()?;
    Ok(published)
}

async fn export(client: &Client, tree: Tree, folder: &Path) -> Result<Added> {
    fs::create_dir_all(folder)
        .map_err(|source| Failure::file(format!("cannot create {}", folder.display()), source))?;
    same_trail(client, tree, folder).await?;
    // Records after checkpoints: then all that these seal is there.
    let checkpoints = Kind::Checkpoints.grow(client, tree, folder).await?;
    let records = Kind::Records.grow(client, tree, folder).await?;
    let newest = newest(folder)?.map(|newest| newest.number);
    Ok(Added { tree, checkpoints, records, newest, head: None, from: None })
}

/// The checkpoint up to which months of `lines` were dropped at last, say the records of the audit.
fn dropped(audit: &Path) -> Result<Option<u64>> {
    #[derive(Deserialize)]
    struct Record {
        kind: String,
        data: String,
    }
    #[derive(Deserialize)]
    struct Dropped {
        checkpoint: Option<u64>,
    }
    let mut last = None;
    for line in Kind::Records.lines(audit)? {
        let line = String::from_utf8_lossy(&line?).into_owned();
        if !line.contains(DROPPED) {
            continue;
        }
        let Record { kind, data } = parse(&line, audit)?;
        if kind == DROPPED {
            last = last.max(parse::<Dropped>(&data, audit)?.checkpoint);
        }
    }
    Ok(last)
}

/// The newest signed checkpoint in the folder whose root is that of the records in it. Without the first records,
/// months of `lines` that are no longer kept, there is none, unless the tree begins at the checkpoint `from`.
fn head(folder: &Path, signers: &Signers, from: Option<u64>) -> Result<Option<Checkpoint>> {
    let (mut tree, mut begun, mut head) = (merkle::Tree::default(), None, None);
    let mut records = Kind::Records.lines(folder)?;
    for line in Kind::Checkpoints.lines(folder)? {
        let checkpoint: Checkpoint = parse(&String::from_utf8_lossy(&line?), folder)?;
        if !signers.signed(&checkpoint) || from.is_some_and(|from| checkpoint.number < from) {
            continue;
        }
        if from == Some(checkpoint.number) {
            let Some(beginning) = beginning(&checkpoint) else { return Ok(None) };
            tree = beginning.0;
            begun = Some(beginning.1);
        }
        while tree.size() < checkpoint.size
            && let Some(record) = records.next()
        {
            let record = record?;
            let covered = |begun: &Place| {
                let place = Kind::Records.place(&String::from_utf8_lossy(&record), folder)?;
                Ok::<_, Failure>(place <= *begun)
            };
            if begun.as_ref().map(covered).transpose()? != Some(true) {
                tree.push(merkle::leaf(&record));
            }
        }
        if tree.size() == checkpoint.size && hex::encode(tree.root()) == checkpoint.root {
            head = Some(checkpoint);
        }
    }
    Ok(head)
}

/// The tree at a checkpoint, and the place of its last record.
fn beginning(checkpoint: &Checkpoint) -> Option<(merkle::Tree, Place)> {
    let hash = |text: &String| hex::decode(text).ok()?.try_into().ok();
    let frontier = checkpoint.frontier.iter().map(hash).collect::<Option<_>>()?;
    let place = checkpoint.cursor.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    Some((merkle::Tree::new(checkpoint.size, frontier)?, place))
}

/// The newest checkpoint in the folder.
fn newest(folder: &Path) -> Result<Option<Checkpoint>> {
    let Some((_, path)) = Kind::Checkpoints.last_part(folder)? else { return Ok(None) };
    parse(&last_line(&path)?, &path).map(Some)
}

/// A control plane whose trail was cut or begun anew does not have the checkpoint that the folder ends with.
async fn same_trail(client: &Client, tree: Tree, folder: &Path) -> Result<()> {
    let Some(head) = newest(folder)? else { return Ok(()) };
    let call = client.get(&["v1", "audit", tree.as_str(), "checkpoints"]).query("limit", "1");
    let page: CheckpointPage = call.query("after", head.number.saturating_sub(1).to_string()).send().await?;
    match page.items.first() {
        Some(there) if there.note == head.note => Ok(()),
        _ => Err(Failure::Conflict(format!(
            "checkpoint {} of the tree {tree} in {} is not the control plane's: its trail was cut or replaced since. \
             Nothing was written. Keep the folder: it is the proof",
            head.number,
            folder.display()
        ))),
    }
}

/// What a tree's parts consist of.
#[derive(Clone, Copy)]
enum Kind {
    Checkpoints,
    Records,
}

/// Where an item stands among those of its kind: number, or era, transaction and id.
type Place = Vec<u64>;

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Checkpoints => "checkpoints",
            Self::Records => "records",
        }
    }

    /// Adds what the control plane has beyond the last part; how many items.
    async fn grow(self, client: &Client, tree: Tree, folder: &Path) -> Result<usize> {
        let (mut number, mut after) = match self.last_part(folder)? {
            Some((number, path)) => (number, Some(self.place(&last_line(&path)?, &path)?)),
            None => (0, None),
        };
        let mut added = 0;
        loop {
            let mut part = None;
            for _ in 0..ANSWERS {
                let text = self.answer(client, tree, after.as_ref()).await?;
                let Some(last) = text.lines().last() else { break };
                let (place, url) = (self.place(last, Path::new("the answer"))?, client.server());
                if after.as_ref().is_some_and(|after| *after >= place) {
                    return Err(Failure::Foreign {
                        url,
                        detail: "its audit trail goes backwards".to_owned(),
                    });
                }
                after = Some(place);
                added += text.lines().count();
                if part.is_none() {
                    number += 1;
                    part = Some(Part::begin(folder.join(format!("{}-{number:06}.jsonl", self.name())))?);
                }
                if let Some(part) = &mut part {
                    part.add(&text)?;
                }
            }
            match part {
                Some(part) => part.finish()?,
                None => return Ok(added),
            }
        }
    }

    /// The next items, a line each; empty when there are none.
    async fn answer(self, client: &Client, tree: Tree, after: Option<&Place>) -> Result<String> {
        let after = after.map(|place| place.iter().map(u64::to_string).collect::<Vec<_>>().join("."));
        let call = client.get(&["v1", "audit", tree.as_str(), self.name()]);
        let call = call.query("limit", PAGE.to_string()).query_if("after", after);
        match self {
            Self::Records => call.text().await,
            Self::Checkpoints => {
                let page: CheckpointPage = call.send().await?;
                page.items.iter().map(line).collect()
            }
        }
    }

    fn place(self, text: &str, from: &Path) -> Result<Place> {
        #[derive(Deserialize)]
        struct Record {
            era: u64,
            xid: String,
            id: String,
        }
        match self {
            Self::Checkpoints => Ok(vec![parse::<Checkpoint>(text, from)?.number]),
            Self::Records => {
                let Record { era, xid, id } = parse(text, from)?;
                let number = |text: &str| text.parse::<u64>().map_err(|_| damaged(from, "no number"));
                Ok(vec![era, number(&xid)?, number(&id)?])
            }
        }
    }

    /// The last part in the folder and its number.
    fn last_part(self, folder: &Path) -> Result<Option<(u32, PathBuf)>> {
        Ok(self.parts(folder)?.pop_last())
    }

    /// The lines of all parts, without their ends.
    fn lines(self, folder: &Path) -> Result<impl Iterator<Item = Result<Vec<u8>>>> {
        let lines = |path: PathBuf| {
            let file = File::open(&path).map(BufReader::new);
            let (lines, unopened) = match file {
                Ok(file) => (Some(file.split(b'\n')), None),
                Err(error) => (None, Some(Err(error))),
            };
            let failed = move |source| Failure::file(format!("cannot read {}", path.display()), source);
            unopened.into_iter().chain(lines.into_iter().flatten()).map(move |line| line.map_err(&failed))
        };
        Ok(self.parts(folder)?.into_values().flat_map(lines))
    }

    /// By number.
    fn parts(self, folder: &Path) -> Result<BTreeMap<u32, PathBuf>> {
        let failed = |source| Failure::file(format!("cannot read {}", folder.display()), source);
        let mut parts = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let number = name.strip_prefix(self.name()).and_then(|rest| rest.strip_prefix('-'));
            let number =
                number.and_then(|rest| rest.strip_suffix(".jsonl")).and_then(|text| text.parse().ok());
            parts.extend(number.map(|number| (number, path)));
        }
        Ok(parts)
    }
}

/// A file that has its name only when it is whole.
struct Part {
    file: BufWriter<File>,
    path: PathBuf,
}

impl Part {
    fn begin(path: PathBuf) -> Result<Self> {
        let file = File::create(path.with_extension("partial"));
        match file {
            Ok(file) => Ok(Self { file: BufWriter::new(file), path }),
            Err(source) => Err(Failure::file(format!("cannot write {}", path.display()), source)),
        }
    }

    fn add(&mut self, text: &str) -> Result<()> {
        self.file.write_all(text.as_bytes()).map_err(|source| self.failed(source))
    }

    fn finish(mut self) -> Result<()> {
        let named = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all())
            .and_then(|()| fs::rename(self.path.with_extension("partial"), &self.path));
        named.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> Failure {
        Failure::file(format!("cannot write {}", self.path.display()), source)
    }
}

/// The last line of a file, however long the file is.
fn last_line(path: &Path) -> Result<String> {
    let read = || -> io::Result<String> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut window = 64 * 1024;
        loop {
            let begin = length.saturating_sub(window);
            (&file).seek(SeekFrom::Start(begin))?;
            let mut bytes = Vec::new();
            (&file).take(window).read_to_end(&mut bytes)?;
            let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
            let found = line.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            if found.len() < line.len() || begin == 0 {
                return Ok(String::from_utf8_lossy(found).into_owned());
            }
            window *= 2;
        }
    };
    read().map_err(|source| Failure::file(format!("cannot read {}", path.display()), source))
}

fn line<T: Serialize>(item: &T) -> Result<String> {
    serde_json::to_string(item).map(|text| text + "\n").map_err(|error| Failure::Other(error.to_string()))
}

fn parse<T: DeserializeOwned>(text: &str, from: &Path) -> Result<T> {
    serde_json::from_str(text).map_err(|error| damaged(from, &error.to_string()))
}

fn damaged(from: &Path, why: &str) -> Failure {
    Failure::Other(format!("{} is not part of an export ({why})", from.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_found_in_files_of_any_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part");
        let long = "x".repeat(200_000);
        for (text, last) in [
            (String::new(), ""),
            ("one\n".to_owned(), "one"),
            ("one\ntwo\n".to_owned(), "two"),
            (format!("one\n{long}\n"), long.as_str()),
            (format!("{long}\ntwo\n"), "two"),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(last_line(&path).unwrap(), last);
        }
    }

    #[test]
    fn a_part_has_its_name_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let name = |number: u32| folder.path().join(format!("records-{number:06}.jsonl"));
        let mut part = Part::begin(name(10)).unwrap();
        part.add("{}\n").unwrap();
        assert!(Kind::Records.last_part(folder.path()).unwrap().is_none());
        part.finish().unwrap();
        fs::write(name(9), "").unwrap();
        fs::write(folder.path().join("checkpoints-000077.jsonl"), "").unwrap();
        assert_eq!(Kind::Records.last_part(folder.path()).unwrap(), Some((10, name(10))));
        assert_eq!(fs::read_to_string(name(10)).unwrap(), "{}\n");
    }

    #[test]
    fn where_a_record_stands_is_in_it() {
        let place = |text| Kind::Records.place(text, Path::new("x"));
        assert_eq!(place(r#"{"era":1,"id":"30","xid":"20"}"#).unwrap(), [1, 20, 30]);
        assert!(
            place(r#"{"era":1,"id":"-1","xid":"20"}"#).unwrap_err().to_string().starts_with("x is not part")
        );
    }
}
