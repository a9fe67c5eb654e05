//! Runs the host's git, with nothing inherited.
//!
//! This is the only module that starts git. Git inherits no environment variable but `PATH`, no configuration
//! of the user or of the system, no hooks, no network and no prompts ([`Git::configuration`] is the one
//! exception). What a repository's own configuration could run is switched off by name; filters, where git
//! writes the local index (`Repository::index_step`).

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::error::{Error, Result, readable};
use crate::fs::program::{has_open, terminate};
use crate::fs::temporary::nameless;
use crate::fs::{File, by_path, host};

/// Why git's part of an exchange did not happen.
#[derive(Debug)]
pub enum Fault {
    /// Git, or a rule of ours, refuses the repository. The rest of the exchange goes on, and the report says why.
    Refused(String),
    /// Git ended without an answer, as when memory is short. It says nothing about the repository, and may answer the next time.
    Killed(String),
    /// The machine failed, or the caller wants to stop.
    Error(Error),
}

impl Fault {
    /// The error, where the rest of an exchange cannot go on without git's answer. `None` if git gave one.
    #[must_use]
    pub fn without_answer(self) -> Option<Error> {
        match self {
            Self::Refused(_) => None,
            Self::Killed(_) => Some(Error::io("run", "git", host::try_again())),
            Self::Error(error) => Some(error),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// A program that is the host's git.
#[derive(Debug, Clone)]
pub struct Git {
    program: PathBuf,
    /// Its `PATH`, by which it finds other programs.
    path: OsString,
}

/// Settings that keep a repository's own configuration from running or redirecting anything.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.sshCommand=false",
    "core.gitProxy=",
    "core.askPass=false",
    "core.editor=false",
    "core.pager=cat",
    "core.alternateRefsCommand=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.quotePath=false",
    "core.splitIndex=false",
    "credential.helper=",
    "protocol.allow=never",
    "safe.directory=*",
    "gc.auto=0",
    "maintenance.auto=false",
    "index.sparse=false",
    "advice.detachedHead=false",
    // A larger file is not read into memory, but piece by piece.
    "core.bigFileThreshold=4m",
];

/// The whole environment, but for `PATH` and what a call sets.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("HOME", "/nonexistent"),
    ("LC_ALL", "C"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", "false"),
    ("SSH_ASKPASS", "false"),
    ("GIT_ALLOW_PROTOCOL", ""),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_COMMITTER_NAME", "Sandbox restore"),
    ("GIT_COMMITTER_EMAIL", "restore@localhost"),
    ("GIT_AUTHOR_NAME", "Sandbox restore"),
    ("GIT_AUTHOR_EMAIL", "restore@localhost"),
];

impl Git {
    /// Finds the git that this process's `PATH` leads to. A program in the workspace is skipped: under `npm
    /// run`, `PATH` begins there, and an agent may have put a program named `git` there.
    #[must_use]
    pub fn find(workspace: &Path) -> Option<Self> {
        Self::search(&std::env::var_os("PATH")?, workspace)
    }

    fn search(path: &OsStr, workspace: &Path) -> Option<Self> {
        // A workspace that does not exist contains no program.
        let workspace = by_path::resolve(workspace).unwrap_or_else(|_| workspace.to_path_buf());
        let is_outside =
            |path: &Path| by_path::resolve(path).is_ok_and(|there| !there.starts_with(&workspace));
        let folders: Vec<PathBuf> =
            std::env::split_paths(path).filter(|folder| folder.is_absolute() && is_outside(folder)).collect();
        let program = folders
            .iter()
            .map(|folder| folder.join("git"))
            .find(|program| by_path::is_file(program) && is_outside(program))?;
        // These folders were split from such a list, so they can be joined again.
        let path = std::env::join_paths(&folders).ok()?;
        Some(Self { program, path })
    }

    /// A git at a known path.
    #[must_use]
    pub fn at(program: PathBuf) -> Self {
        Self { program, path: std::env::var_os("PATH").unwrap_or_default() }
    }

    /// Its path.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A call of `git` in the repository at `git_dir`.
    #[must_use]
    pub fn call(&self, git_dir: &Path) -> Call<'_> {
        let mut call = self.outside();
        call.env("GIT_DIR", git_dir).command.current_dir(git_dir);
        call
    }

    /// A call that lists the configuration in effect for the user's own git, with that of the user and the system.
    /// It runs nothing; it is the one call that inherits the variables which say where these files are, or have settings themselves.
    #[must_use]
    pub fn configuration(&self, git_dir: &Path) -> Call<'_> {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", &self.path).current_dir("/");
        command.env("LC_ALL", "C").env("GIT_DIR", git_dir);
        command.envs(std::env::vars_os().filter(|(name, _)| says_configuration(name)));
        let mut call =
            Call { git: self, command, input: Input::None, name: String::new(), is_bounded: false };
        call.args(["config", "--list", "-z", "--show-origin", "--includes"]);
        call
    }

    /// A call that needs no repository, or finds it by itself.
    #[must_use]
    pub fn outside(&self) -> Call<'_> {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(ENVIRONMENT.iter().copied()).env("PATH", &self.path).current_dir("/");
        command.args(["--no-pager", "--literal-pathspecs"]);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        Call { git: self, command, input: Input::None, name: String::new(), is_bounded: false }
    }
}

/// Whether a variable says where the user's git finds configurations, or has settings. (`git -c` passes its own to the programs that it
/// runs; `GIT_CONFIG_KEY_0` has one of `GIT_CONFIG_COUNT`.)
fn says_configuration(name: &OsStr) -> bool {
    const NAMES: [&str; 7] = [
        "HOME",
        "XDG_CONFIG_HOME",
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_SYSTEM",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_CONFIG_COUNT",
        "GIT_CONFIG_PARAMETERS",
    ];
    let name = name.as_encoded_bytes();
    NAMES.iter().any(|known| known.as_bytes() == name)
        || [b"GIT_CONFIG_KEY_".as_slice(), b"GIT_CONFIG_VALUE_"].iter().any(|start| name.starts_with(start))
}

/// The most memory of a [bounded](Call::bounded) call, which lists some two million paths with it.
const MEMORY_MAX: u64 = 512 << 20;

/// The most output of a [bounded](Call::bounded) call.
const OUTPUT_MAX: u64 = 256 << 20;

/// What git says where it gets no memory.
const OUT_OF_MEMORY: [&[u8]; 3] = [b"Cannot allocate memory", b"ut of memory", b"malloc failed"];

/// What git says of a reference that it may not read.
const UNREADABLE: [&[u8]; 2] = [b"Permission denied", b"No such ref"];

/// What git says where the machine lacks something else.
const OF_THE_MACHINE: [&[u8]; 6] = [
    b"Too many open files",
    b"Resource temporarily unavailable",
    b"unable to create thread",
    b"No space left on device",
    b"Disk quota exceeded",
    b"Input/output error",
];

/// Whether git's messages contain one of these.
fn says(stderr: &[u8], messages: &[&[u8]]) -> bool {
    messages.iter().any(|message| stderr.windows(message.len()).any(|said| said == *message))
}

enum Input {
    None,
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl Input {
    /// Opens what git reads. Bytes are put into a file without a name, so that git can read all of them even
    /// if this process is killed meanwhile: half a list of changes would be taken for the whole list.
    fn open(&self) -> Result<Stdio> {
        match self {
            Self::None => Ok(Stdio::null()),
            Self::Bytes(bytes) => Ok(nameless(bytes)?.into()),
            Self::File(path) => Ok(by_path::open(path)?.into()),
        }
    }
}

/// Where the standard output of git goes.
enum Onto<'a> {
    Memory,
    File(File),
    Taker(&'a mut (dyn FnMut(&[u8]) -> bool + Send)),
}

/// One run of git that is being prepared.
pub struct Call<'a> {
    git: &'a Git,
    command: Command,
    input: Input,
    name: String,
    is_bounded: bool,
}

/// The result of a run of git.
#[derive(Debug)]
pub struct Output {
    /// Its exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// The beginning of its standard error.
    pub stderr: Vec<u8>,
    /// Whether it ended by the bounds of a [bounded](Call::bounded) call.
    pub is_over: bool,
}

impl Output {
    /// Its error message, short enough for a report.
    #[must_use]
    pub fn complaint(&self) -> String {
        short(&self.stderr)
    }
}

/// Text from outside in the form for a report: one line, printable, at most 200 characters.
#[must_use]
pub fn short(text: &[u8]) -> String {
    let text = readable(text.trim_ascii());
    let escaped: String = text
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect();
    escaped.chars().take(200).collect()
}

impl Call<'_> {
    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        if self.name.is_empty() {
            self.name = arg.as_ref().to_string_lossy().into_owned();
        }
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = S>) -> &mut Self {
        for arg in args {
            self.arg(arg);
        }
        self
    }

    /// Sets a setting that counts for this call alone. Must be called before any argument is added.
    pub fn setting(&mut self, setting: &str) -> &mut Self {
        self.command.args(["-c", setting]);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.command.env(name, value.into());
        self
    }

    /// Sets its working directory.
    pub fn cwd(&mut self, folder: &Path) -> &mut Self {
        self.command.current_dir(folder);
        self
    }

    /// Sets its standard input.
    pub fn input(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.input = Input::Bytes(bytes.into());
        self
    }

    /// Sets a file as its standard input.
    pub fn input_file(&mut self, path: &Path) -> &mut Self {
        self.input = Input::File(path.to_path_buf());
        self
    }

    /// Ends it once it takes, or prints, more than any repository of people needs. A few objects can stand for billions of paths:
    /// a tree that has the same tree ten times, and so on for ten levels.
    pub fn bounded(&mut self) -> &mut Self {
        self.is_bounded = true;
        self
    }

    /// Marks it as a change of a local repository: a signal to this process's group (Ctrl-C in a terminal)
    /// does not reach it, because a git that is ended at once leaves its locks behind.
    pub fn step(&mut self) -> &mut Self {
        host::give_own_group(&mut self.command);
        self
    }

    /// Runs it and returns its output, whatever its exit status.
    pub fn output(&mut self, cancel: &Cancel) -> Result<Output, Fault> {
        let output = self.spawn_and_wait(Onto::Memory, cancel)?;
        self.answered(output)
    }

    /// Runs it and returns its output if it says yes or no (its exit status is 0 or 1), or may not read what was asked for. Anything else is
    /// no answer.
    pub fn answer(&mut self, cancel: &Cancel) -> Result<Output, Fault> {
        let output = self.output(cancel)?;
        if matches!(output.status, Some(0 | 1)) || says(&output.stderr, &UNREADABLE) {
            return Ok(output);
        }
        Err(Fault::Killed(format!("git {} failed: {}", self.name, output.complaint())))
    }

    /// Runs it with its standard output in a file.
    pub fn into_file(&mut self, path: &Path, cancel: &Cancel) -> Result<(), Fault> {
        let file = by_path::create(path)?;
        let output = self.spawn_and_wait(Onto::File(file), cancel)?;
        self.answered(output).and_then(|output| self.succeeded(output)).map(|_| ())
    }

    /// Runs it and hands over its standard output in pieces, until `take` returns false, which ends it.
    pub fn pipe_to(
        &mut self,
        take: &mut (dyn FnMut(&[u8]) -> bool + Send),
        cancel: &Cancel,
    ) -> Result<(), Fault> {
        let mut is_wanted = true;
        let mut handed = |piece: &[u8]| {
            is_wanted = take(piece);
            is_wanted
        };
        let output = self.spawn_and_wait(Onto::Taker(&mut handed), cancel)?;
        if is_wanted {
            self.answered(output).and_then(|output| self.succeeded(output)).map(|_| ())
        } else {
            Ok(())
        }
    }

    /// Runs it and returns its standard output. If its exit status is not 0, that is a refusal with git's
    /// error message.
    pub fn run(&mut self, cancel: &Cancel) -> Result<Vec<u8>, Fault> {
        let output = self.output(cancel)?;
        self.succeeded(output)
    }

    /// Starts it, and leaves it waiting for what it is told on its standard input.
    pub fn start(&mut self) -> Result<Waiting> {
        let failed = |error| Error::io("spawn", &self.git.program, error);
        let messages = nameless(b"")?;
        let stderr = messages.try_clone().map_err(failed)?;
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::from(stderr))
            .spawn()
            .map_err(failed)?;
        let stdin = child.stdin.take();
        let room = stdin.as_ref().map_or(0, host::widen_pipe);
        Ok(Waiting { program: self.git.program.clone(), child, stdin, room, messages, told: Vec::new() })
    }

    /// Tells apart what git says of the repository and that the machine did not let it say anything.
    fn answered(&self, mut output: Output) -> Result<Output, Fault> {
        // A bounded call may end by its bounds.
        let is_full = output.stdout.len() as u64 >= OUTPUT_MAX;
        let is_over = self.is_bounded && (is_full || says(&output.stderr, &OUT_OF_MEMORY));
        if is_over || output.status == Some(0) {
            output.is_over = is_over;
            return Ok(output);
        }
        let name = &self.name;
        if output.status.is_none() {
            return Err(Fault::Killed(format!("git {name} was ended by a signal, as when memory is short")));
        }
        if says(&output.stderr, &OUT_OF_MEMORY) || says(&output.stderr, &OF_THE_MACHINE) {
            return Err(Fault::Killed(format!("git {name} failed: {}", output.complaint())));
        }
        Ok(output)
    }

    fn succeeded(&self, output: Output) -> Result<Vec<u8>, Fault> {
        if output.status == Some(0) {
            Ok(output.stdout)
        } else {
            Err(Fault::Refused(format!("git {} failed: {}", self.name, output.complaint())))
        }
    }

    fn spawn_and_wait(&mut self, onto: Onto<'_>, cancel: &Cancel) -> Result<Output> {
        let failed = |error| Error::io("spawn", &self.git.program, error);
        cancel.check()?;
        let stdin = self.input.open()?;
        let (stdout, taker) = match onto {
            Onto::Memory => (Stdio::piped(), None),
            Onto::File(file) => (file.into(), None),
            Onto::Taker(taker) => (Stdio::piped(), Some(taker)),
        };
        self.command.stdin(stdin).stderr(Stdio::piped()).stdout(stdout);
        let mut child = self.command.spawn().map_err(failed)?;
        if self.is_bounded {
            host::limit_memory(child.id(), MEMORY_MAX).map_err(failed)?;
        }
        let most = if self.is_bounded { OUTPUT_MAX } else { u64::MAX };
        let (mut from, mut messages) = (child.stdout.take(), child.stderr.take());
        let (status, stdout, stderr) = thread::scope(|scope| {
            let (over, ends) = mpsc::channel();
            let stdout = scope.spawn(move || match taker {
                None => read_all(from.take(), most),
                Some(taker) => hand_over(from.take(), taker).map(|()| Vec::new()),
            });
            let stderr = scope.spawn(move || {
                let read = read_all(messages.take(), u64::MAX);
                // The receiver is gone if waiting has failed, and then nobody needs the result.
                let _unheard = over.send(());
                read
            });
            let status = wait(&mut child, &ends, cancel);
            (status, stdout.join(), stderr.join())
        });
        let died = |_| Error::Internal("a thread that reads what git says died".to_owned());
        let status = status.map_err(failed)?;
        cancel.check()?;
        let stdout = stdout.map_err(died)?.map_err(failed)?;
        let mut stderr = stderr.map_err(died)?.map_err(failed)?;
        stderr.truncate(64 * 1024);
        Ok(Output { status, stdout, stderr, is_over: false })
    }
}

/// A git that waits for what it is told, and acts once it has been told everything, or once this process was killed. Dropped before
/// that, it does nothing.
#[derive(Debug)]
pub struct Waiting {
    program: PathBuf,
    child: Child,
    stdin: Option<ChildStdin>,
    /// How many bytes it can be told in one step, so that it hears all of them even if this process is killed.
    room: usize,
    messages: File,
    /// What it was told so far.
    told: Vec<u8>,
}

impl Waiting {
    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        let ended = self.child.try_wait().map_err(|error| Error::io("wait", &self.program, error))?;
        Ok(ended.is_some())
    }

    /// Whether it is known to have a file open.
    #[must_use]
    pub fn has_open(&self, file: &Path) -> bool {
        has_open(&self.child, file)
    }

    /// Tells it these bytes, of which [it can do](Self::can_do) all, without an end.
    pub fn tell(&mut self, input: &[u8]) -> Result<()> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        self.told.extend(input);
        match stdin.write_all(input) {
            // Its status says why it no longer listens.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|error| Error::io("write", &self.program, error)),
        }
    }

    /// Whether it was told nothing but the beginning of these bytes, and has room for the rest.
    #[must_use]
    pub fn can_do(&self, input: &[u8]) -> bool {
        input.len() <= self.room && input.starts_with(&self.told)
    }

    /// Ends it without a change.
    ///
    /// Without the signal it might write what it has read, since it brings an index into the form that its settings ask for.
    pub fn give_up(self) {
        terminate(&self.child);
    }

    /// Tells it the rest of these bytes, and waits for its end.
    pub fn finish(mut self, input: &[u8]) -> Result<Output> {
        let rest = input.get(self.told.len()..).unwrap_or_default();
        self.tell(rest)?;
        drop(self.stdin.take());
        let failed = |error| Error::io("wait", &self.program, error);
        let status = self.child.wait().map_err(failed)?.code();
        let mut stderr = Vec::new();
        self.messages.rewind().map_err(failed)?;
        (&self.messages).take(64 * 1024).read_to_end(&mut stderr).map_err(failed)?;
        Ok(Output { status, stdout: Vec::new(), stderr, is_over: false })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // With this signal it removes its locks, and does nothing of what it was told.
        if self.stdin.is_some() && !self.told.is_empty() {
            terminate(&self.child);
        }
        // It ends once its standard input is closed.
        drop(self.stdin.take());
        // It did nothing, so nothing of it can have failed.
        let _ended = self.child.wait();
    }
}

/// Hands over what a program prints until it is no longer wanted. What the program prints after that ends it.
fn hand_over(pipe: Option<impl Read>, taker: &mut (dyn FnMut(&[u8]) -> bool + Send)) -> std::io::Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut piece = vec![0; 64 * 1024];
    loop {
        let length = match pipe.read(&mut piece) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read?,
        };
        if length == 0 || !taker(&piece[..length]) {
            return Ok(());
        }
    }
}

/// Reads at most so many bytes. What the program prints after that ends it.
fn read_all(pipe: Option<impl Read>, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(most).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Waits for a child to end, which is near once `ends` says that it has closed its standard error. Ends it if
/// the caller cancels.
fn wait(child: &mut Child, ends: &Receiver<()>, cancel: &Cancel) -> std::io::Result<Option<i32>> {
    while ends.recv_timeout(Duration::from_millis(10)) == Err(RecvTimeoutError::Timeout) {
        if cancel.check().is_err() {
            child.kill()?;
        }
        // A program that it started may hold its standard error open.
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
    }
    child.wait().map(|status| status.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_inherits_nothing_from_our_environment() {
        let git = Git::find(Path::new("/nonexistent")).expect("git is installed");
        let folder = tempfile::tempdir().unwrap();
        let cancel = Cancel::default();
        git.outside()
            .args(["init", "-q", "--template="])
            .arg(folder.path())
            .run(&cancel)
            .map_err(drop)
            .unwrap();
        let dir = folder.path().join(".git");
        let list =
            git.call(&dir).args(["config", "--list", "--show-scope"]).run(&cancel).map_err(drop).unwrap();
        let list = String::from_utf8(list).unwrap();
        assert!(list.lines().all(|line| line.starts_with("local") || line.starts_with("command")), "{list}");
        let output = git.call(&dir).args(["var", "GIT_COMMITTER_IDENT"]).run(&cancel).map_err(drop).unwrap();
        assert!(output.starts_with(b"Sandbox restore <restore@localhost>"));
    }

    /// What a repository sets for itself has no effect on our calls.
    #[test]
    fn a_repository_does_not_configure_what_git_runs_or_reads() {
        let git = Git::find(Path::new("/nonexistent")).expect("git is installed");
        let folder = tempfile::tempdir().unwrap();
        let run = |call: &mut Call<'_>| {
            let output = call.run(&Cancel::default()).map_err(|fault| panic!("{fault:?}")).unwrap();
            String::from_utf8(output).unwrap().trim_end().to_owned()
        };
        run(git.outside().args(["init", "-q", "--template="]).arg(folder.path()));
        let dir = folder.path().join(".git");
        for (key, value) in [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.untrackedCache", "false"),
            ("core.sshCommand", "false"),
            ("core.gitProxy", ""),
            ("core.editor", "false"),
            ("core.pager", "cat"),
            ("core.alternateRefsCommand", "false"),
            ("core.attributesFile", "/dev/null"),
            ("core.splitIndex", "false"),
            ("credential.helper", ""),
        ] {
            run(git.call(&dir).args(["config", "--local", key, "planted"]));
            assert_eq!(run(git.call(&dir).args(["config", "--get", key])), value, "{key}");
            // An invalid value would make the calls that follow fail.
            run(git.call(&dir).args(["config", "--local", "--unset", key]));
        }
    }

    #[test]
    fn no_configuration_of_the_user_or_the_system_counts() {
        let git = Git::find(Path::new("/nonexistent")).expect("git is installed");
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(".gitconfig"), "[x]\n\tplanted = true\n").unwrap();
        for (name, file) in [("HOME", ""), ("GIT_CONFIG_SYSTEM", ".gitconfig")] {
            let mut call = git.outside();
            call.env(name, home.path().join(file)).args(["config", "--get", "x.planted"]);
            assert_eq!(call.output(&Cancel::default()).unwrap().status, Some(1), "{name}");
        }
        // A repository may include a file of the user's.
        let call = |args: &[&str]| {
            let mut call = git.call(home.path());
            call.args(args).run(&Cancel::default()).map_err(|fault| panic!("{fault:?}")).unwrap()
        };
        call(&["init", "-q", "--bare", "--template=", "."]);
        call(&["config", "include.path", "~/.gitconfig"]);
        call(&["config", "--list"]);
    }

    #[test]
    fn git_opens_no_connection() {
        let git = Git::find(Path::new("/nonexistent")).expect("git is installed");
        for (address, transport) in
            [("/nonexistent", "file"), ("https://localhost/x", "https"), ("ext::sh -c x", "ext")]
        {
            let Err(Fault::Refused(reason)) =
                git.outside().args(["ls-remote", address]).run(&Cancel::default())
            else {
                panic!("{address} was read");
            };
            assert!(reason.contains(&format!("transport '{transport}' not allowed")), "{reason}");
        }
    }

    #[test]
    fn git_asks_nobody_for_a_password() {
        let git = Git::find(Path::new("/nonexistent")).expect("git is installed");
        let mut call = git.outside();
        // Git prefers `GIT_ASKPASS` to this variable; the program `false` in it prints nothing.
        call.env("SSH_ASKPASS", "echo").args(["credential", "fill"]);
        let output = call.input("protocol=https\nhost=example.com\n\n").output(&Cancel::default()).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
        assert!(output.complaint().contains("terminal prompts disabled"), "{}", output.complaint());
    }

    #[test]
    fn no_git_is_found_in_the_workspace() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["ws/node_modules/.bin", "linked", "good", "bin"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::fs::write(at("ws/node_modules/.bin/git"), "").unwrap();
        std::fs::write(at("good/git"), "").unwrap();
        symlink(at("ws/node_modules/.bin"), at("to-workspace")).unwrap();
        symlink(at("ws/node_modules/.bin/git"), at("linked/git")).unwrap();
        let search = |folders: &[PathBuf]| {
            Git::search(&std::env::join_paths(folders).unwrap(), &at("ws")).map(|git| (git.program, git.path))
        };
        let bad = [at("ws/node_modules/.bin"), at("to-workspace"), at("linked"), "bin".into(), at("absent")];
        assert_eq!(search(&bad), None);
        // A relative path is skipped, even if it leads out of the workspace.
        let up: PathBuf = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect();
        let relative = up.join(at("good").canonicalize().unwrap().strip_prefix("/").unwrap());
        assert!(relative.join("git").exists());
        assert_eq!(search(&[relative]), None);
        let all = [&bad[..], &[at("good")]].concat();
        let (program, path) = search(&all).unwrap();
        assert_eq!(program, at("good/git"));
        assert_eq!(path, std::env::join_paths([at("linked"), at("good")]).unwrap());
        // Git in its turn finds programs in the same folders only.
        let git = Git { program, path: path.clone() };
        let call = git.outside();
        let mut inherited = call.command.get_envs().filter(|(name, _)| *name == "PATH");
        assert_eq!(inherited.next(), Some(("PATH".as_ref(), Some(&path[..]))));
    }

    #[test]
    fn a_refusal_has_the_error_message_of_git() {
        let git = Git::find(Path::new("/nonexistent")).expect("git is installed");
        let Err(Fault::Refused(reason)) =
            git.outside().args(["rev-parse", "--git-dir"]).run(&Cancel::default())
        else {
            panic!("there is no repository at /");
        };
        assert!(reason.contains("not a git repository"), "{reason}");
    }

    #[test]
    fn a_git_that_the_machine_ended_has_given_no_answer() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("git");
        for (script, is_answer) in [
            ("exit 0", true),
            ("exit 1", true),
            ("echo 'fatal: bad object x' >&2; exit 128", true),
            ("kill -9 $$", false),
            ("echo 'fatal: unable to create thread: Resource temporarily unavailable' >&2; exit 128", false),
            ("echo 'fatal: Out of memory, malloc failed (tried to allocate 9 bytes)' >&2; exit 128", false),
            ("echo \"error: unable to open '.git/config': Too many open files\" >&2; exit 1", false),
        ] {
            std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            // The file may be open for writing in a child that another test starts.
            let output = loop {
                match Git::at(program.clone()).outside().arg("x").output(&Cancel::default()) {
                    Err(Fault::Error(error)) if error.to_string().contains("ETXTBSY") => {}
                    output => break output,
                }
            };
            match output {
                Ok(_) => assert!(is_answer, "{script}"),
                Err(Fault::Killed(_)) => assert!(!is_answer, "{script}"),
                Err(fault) => panic!("{script}: {fault:?}"),
            }
        }
    }

    #[test]
    fn a_cancelled_call_does_not_start_git() {
        let git = Git::find(Path::new("/nonexistent")).expect("git is installed");
        let cancel = Cancel::default();
        cancel.cancel();
        let output = git.outside().arg("version").output(&cancel);
        assert!(matches!(output, Err(Fault::Error(Error::Aborted))));
    }
}
