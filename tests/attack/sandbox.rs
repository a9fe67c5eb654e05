//! Test sandboxes: one is a folder with a real `sh`, the other answers every download with given bytes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sandbox_managed_runtime::sandbox::client::{Part, SandboxClient};

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The test made this call fail.
    Wanted(usize),
    /// The test made this call fail temporarily: the next one succeeds.
    Temporary(usize),
    /// A command failed, with its output.
    Command(String),
    /// A file could not be read or written.
    File(String),
}

/// Counts the calls, and fails one of them.
#[derive(Default)]
pub struct Calls {
    done: AtomicUsize,
    fail_at: Mutex<Option<usize>>,
    /// Whether the failure is temporary.
    pub passes: AtomicBool,
}

impl Calls {
    /// Starts counting again, and fails the nth call.
    pub fn fail_at(&self, call: Option<usize>) {
        self.done.store(0, Ordering::SeqCst);
        *self.fail_at.lock().unwrap() = call;
    }

    /// The number of calls.
    pub fn count(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    fn next<T>(&self, call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let number = self.done.fetch_add(1, Ordering::SeqCst);
        let fails = *self.fail_at.lock().unwrap() == Some(number);
        match (fails, self.passes.load(Ordering::SeqCst)) {
            (false, _) => call(),
            (true, false) => Err(Failure::Wanted(number)),
            (true, true) => Err(Failure::Temporary(number)),
        }
    }
}

/// A sandbox on this machine: its paths are real paths, and its commands run in `sh`.
#[derive(Default)]
pub struct LocalSandbox {
    /// The calls made to it.
    pub calls: Calls,
    /// The folder with its tools, including `sh`. Without one, it has those of this machine.
    pub tools: Option<PathBuf>,
    /// The size of the last file that was read.
    pub last_read: AtomicUsize,
    /// How many bytes were written to all files.
    pub written: AtomicUsize,
    /// Called after each file that was read, with its path.
    pub after_read: Mutex<Option<AfterRead>>,
}

/// What a sandbox does after a file was read.
pub type AfterRead = Box<dyn FnMut(&str) + Send>;

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::File(error.to_string())
    }
}

impl LocalSandbox {
    /// Makes a call, and tells how long it took.
    fn timed(&self, call: impl FnOnce() -> Result<(), Failure>) -> Result<Duration, Failure> {
        let started = Instant::now();
        self.calls.next(call)?;
        Ok(started.elapsed())
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        if let Some(tools) = &self.tools {
            shell = Command::new(tools.join("sh"));
            shell.env("PATH", tools);
        }
        shell.args(["-c", command]);
        shell
    }
}

impl SandboxClient for LocalSandbox {
    type Failure = Failure;
    type Upload = Vec<u8>;
    type Download = Vec<u8>;

    async fn allocate(&self, size: u64) -> Result<Vec<u8>, Failure> {
        Ok(vec![0; usize::try_from(size).unwrap()])
    }

    async fn make_dir(&self, path: &str) -> Result<Duration, Failure> {
        self.timed(|| Ok(fs::create_dir_all(path)?))
    }

    async fn write_file(&self, path: &str, bytes: &Vec<u8>, _: Part<'_>) -> Result<Duration, Failure> {
        self.written.fetch_add(bytes.len(), Ordering::SeqCst);
        self.timed(|| Ok(fs::write(path, bytes)?))
    }

    async fn read_file(&self, path: &str, _: Option<Part<'_>>) -> Result<Vec<u8>, Failure> {
        self.calls.next(|| {
            let content = fs::read(path)?;
            self.last_read.store(content.len(), Ordering::SeqCst);
            if let Some(after_read) = &mut *self.after_read.lock().unwrap() {
                after_read(path);
            }
            Ok(content)
        })
    }

    fn is_passing(&self, failure: &Failure) -> bool {
        matches!(failure, Failure::Temporary(_))
    }

    async fn discard(&self, path: &str) {
        // It may not exist.
        let _gone = fs::remove_file(path);
    }

    async fn clear(&self, command: &str) {
        let output = self.shell(command).output().unwrap();
        assert!(output.status.success(), "{}", output.stderr.escape_ascii());
    }

    async fn remove(&self, path: &str) -> Result<(), Failure> {
        self.calls.next(|| Ok(fs::remove_file(path)?))
    }

    async fn run(&self, command: &str) -> Result<(), Failure> {
        self.calls.next(|| {
            let output = self.shell(command).output()?;
            if output.status.success() {
                return Ok(());
            }
            Err(Failure::Command(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))))
        })
    }
}

/// A sandbox that accepts everything and answers each download with the same bytes.
#[derive(Default)]
pub struct CannedSandbox {
    /// The content of each download.
    pub download: Mutex<Vec<u8>>,
    /// The last upload.
    pub upload: Mutex<Vec<u8>>,
    /// Whether its mark is missing.
    pub has_forgotten: AtomicBool,
    /// How often a download was requested.
    pub downloads: AtomicUsize,
}

impl CannedSandbox {
    /// Sets the content of the next downloads.
    pub fn answer(&self, download: impl Into<Vec<u8>>) {
        *self.download.lock().unwrap() = download.into();
        self.has_forgotten.store(false, Ordering::SeqCst);
    }

    /// Sets the content of the next downloads, without the entry for the mark before it.
    pub fn answer_unmarked(&self, download: impl Into<Vec<u8>>) {
        self.answer(download);
        self.has_forgotten.store(true, Ordering::SeqCst);
    }
}

/// The entry of a download that tells which upload the sandbox has, as the uploaded script makes it.
pub fn mark_of(upload: &[u8]) -> Vec<u8> {
    let setting = |name: &str| {
        let name = format!("\n{name}=");
        let start = upload.windows(name.len()).rposition(|window| window == name.as_bytes())? + name.len();
        let end = upload[start..].iter().position(|&byte| byte == b'\n')?;
        Some(String::from_utf8(upload[start..start + end].to_vec()).unwrap())
    };
    let (Some(id), Some(answer)) = (setting("upload"), setting("answer")) else { return Vec::new() };
    let content = format!("mark {id}\n");
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_path(answer.trim_matches('\'')).unwrap();
    header.set_cksum();
    let mut entry = [header.as_bytes(), content.as_bytes()].concat();
    entry.resize(1024, 0);
    entry
}

impl SandboxClient for CannedSandbox {
    type Failure = Failure;
    type Upload = Vec<u8>;
    type Download = Vec<u8>;

    async fn allocate(&self, size: u64) -> Result<Vec<u8>, Failure> {
        Ok(vec![0; usize::try_from(size).unwrap()])
    }

    async fn make_dir(&self, _: &str) -> Result<Duration, Failure> {
        Ok(Duration::ZERO)
    }

    async fn write_file(&self, _: &str, bytes: &Vec<u8>, _: Part<'_>) -> Result<Duration, Failure> {
        self.upload.lock().unwrap().clone_from(bytes);
        Ok(Duration::ZERO)
    }

    fn is_passing(&self, _: &Failure) -> bool {
        false
    }

    async fn discard(&self, _: &str) {}

    async fn clear(&self, _: &str) {}

    async fn read_file(&self, _: &str, _: Option<Part<'_>>) -> Result<Vec<u8>, Failure> {
        self.downloads.fetch_add(1, Ordering::SeqCst);
        let download = self.download.lock().unwrap().clone();
        if self.has_forgotten.load(Ordering::SeqCst) {
            return Ok(download);
        }
        Ok([mark_of(&self.upload.lock().unwrap()), download].concat())
    }

    async fn remove(&self, _: &str) -> Result<(), Failure> {
        Ok(())
    }

    async fn run(&self, _: &str) -> Result<(), Failure> {
        Ok(())
    }
}
