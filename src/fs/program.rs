//! Programs of this machine, with pipes as their standard streams.
//!
//! The system copies nothing of this process to start one: the new process shares this one's memory until it has become
//! the program (`posix_spawn`). A `fork` would first copy the page tables of all memory.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::error::{Error, Result};
use crate::sync::lock;
use crate::threads;

/// Where programs are looked for if there is no `PATH`, as in the C library.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// What runs a script whose first line does not name an interpreter.
const SHELL: &str = "/bin/sh";

/// A program to start.
#[derive(Debug)]
pub struct Program {
    /// Its path, or a name that is looked for in the folders of `PATH`.
    pub name: OsString,
    /// Its arguments, without its name.
    pub args: Vec<OsString>,
    /// Its whole environment. The `PATH` in it is also the one in which the program is looked for.
    pub env: Vec<(OsString, OsString)>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this exit code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

/// A program that was started, or is about to be.
#[derive(Debug, Clone, Default)]
pub struct Running(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Starts,
    /// It is to be killed as soon as it has started.
    Unwanted,
    Runs(Pid),
    Ended,
}

/// Starts a program on a thread of its own, which then waits for its end. `on_end` is called there, also if the program
/// cannot be started. Returns our ends of its standard streams.
pub fn start(
    program: Program,
    on_end: impl FnOnce(Result<Ending>) + Send + 'static,
) -> Result<(Running, Streams)> {
    let (theirs, ours) = Streams::pipes().map_err(|error| Error::io("pipe", &program.name, error))?;
    let running = Running::default();
    let here = running.clone();
    threads::apart("sandbox-program", move || on_end(here.run(&program, theirs)))?;
    Ok((running, ours))
}

impl Running {
    /// Kills the program, unless it has ended.
    ///
    /// One of another user (by `sudo`) cannot be killed. It notices that its standard streams are closed.
    pub fn kill(&self) {
        let mut state = lock(&self.0);
        match *state {
            State::Starts => *state = State::Unwanted,
            State::Runs(pid) => drop(kill_process(pid, Signal::KILL)),
            State::Unwanted | State::Ended => {}
        }
    }

    fn run(&self, program: &Program, streams: Streams) -> Result<Ending> {
        let failed = |error| Error::io("spawn", &program.name, error);
        let mut child = program.spawn(&streams).map_err(failed)?;
        drop(streams);
        let pid = Pid::from_child(&child);
        let before = std::mem::replace(&mut *lock(&self.0), State::Runs(pid));
        if matches!(before, State::Unwanted) {
            self.kill();
        }
        // Its number stays its own until it is forgotten, so a signal of ours cannot reach another process.
        let waited =
            retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT));
        *lock(&self.0) = State::Ended;
        let forgotten = child.wait();
        waited.map_err(|errno| failed(errno.into()))?;
        forgotten.map(Ending::from).map_err(failed)
    }
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Self {
        // It has the one or the other.
        status.code().map_or_else(|| Self::Signal(status.signal().unwrap_or_default()), Self::Exit)
    }
}

impl Program {
    /// Starts it as `execvp` does: from the first folder of `PATH` in which that is possible.
    fn spawn(&self, streams: &Streams) -> io::Result<Child> {
        if self.name.as_encoded_bytes().contains(&b'/') {
            return self.spawn_at(Path::new(&self.name), streams);
        }
        let mut failure = Errno::NOENT.into();
        for path in self.paths() {
            match self.spawn_at(&path, streams) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => failure = error,
                Err(error) if is_absent(&error) => {}
                outcome => return outcome,
            }
        }
        Err(failure)
    }

    /// The paths that it may have by its name. Each has a slash, so it is not looked for again.
    fn paths(&self) -> Vec<PathBuf> {
        let path = self.env.iter().find(|(name, _)| name == "PATH");
        let path = path.map_or(OsStr::new(DEFAULT_PATH), |(_, path)| path);
        // An empty name is that of the working directory.
        std::env::split_paths(path).map(|folder| Path::new(".").join(folder).join(&self.name)).collect()
    }

    fn spawn_at(&self, path: &Path, streams: &Streams) -> io::Result<Child> {
        let outcome = self.command(path, streams)?.arg0(&self.name).args(&self.args).spawn();
        match outcome {
            Err(error) if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
                self.command(Path::new(SHELL), streams)?.arg(path).args(&self.args).spawn()
            }
            outcome => outcome,
        }
    }

    fn command(&self, path: &Path, streams: &Streams) -> io::Result<Command> {
        let [stdin, stdout, stderr] = streams.for_child()?;
        let mut command = Command::new(path);
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        // Our own environment is not read: JavaScript's thread may change it meanwhile.
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }
}

/// Asks a child to end. Most programs remove their temporary files then.
pub fn terminate(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // If it has ended, there is nothing to ask.
        let _has_ended = kill_process(pid, Signal::TERM);
    }
}

/// Whether a child, or a program that it runs, is known to have a file open: only Linux tells.
#[must_use]
pub fn has_open(child: &Child, file: &Path) -> bool {
    // One that is gone by now is open no more.
    file.canonicalize().is_ok_and(|file| process_has_open(child.id(), &file, RUNS_MAX))
}

/// How many programs that run each other are looked at: a script may run the real one.
const RUNS_MAX: usize = 4;

fn process_has_open(process: u32, file: &Path, runs: usize) -> bool {
    // A descriptor may be closed, and a process end, while its directory is read.
    let leads_to = |entry: io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to == file))
    };
    let opened = std::fs::read_dir(format!("/proc/{process}/fd"));
    if opened.is_ok_and(|opened| opened.into_iter().any(leads_to)) {
        return true;
    }
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let children = children.unwrap_or_default();
    let mut children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok());
    runs > 1 && children.any(|child| process_has_open(child, file, runs - 1))
}

fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, StaleNetworkFileHandle};
    matches!(error.kind(), NotFound | NotADirectory | StaleNetworkFileHandle)
}

/// One end of each of the three standard streams: input, output, error output.
#[derive(Debug)]
pub struct Streams([OwnedFd; 3]);

impl Streams {
    /// The program's ends, and ours.
    fn pipes() -> io::Result<(Self, Self)> {
        let (stdin, to_stdin) = io::pipe()?;
        let (from_stdout, stdout) = io::pipe()?;
        let (from_stderr, stderr) = io::pipe()?;
        let theirs = Self([stdin.into(), stdout.into(), stderr.into()]);
        Ok((theirs, Self([to_stdin.into(), from_stdout.into(), from_stderr.into()])))
    }

    fn for_child(&self) -> io::Result<[Stdio; 3]> {
        let [stdin, stdout, stderr] = &self.0;
        Ok([stdin.try_clone()?.into(), stdout.try_clone()?.into(), stderr.try_clone()?.into()])
    }

    /// Their numbers. The caller has to close them.
    #[must_use]
    pub fn into_numbers(self) -> [RawFd; 3] {
        self.0.map(IntoRawFd::into_raw_fd)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn program(name: &str, args: &[&str], path: &str) -> Program {
        let env = vec![(OsString::from("PATH"), OsString::from(path))];
        Program { name: name.into(), args: args.iter().map(OsString::from).collect(), env }
    }

    #[test]
    fn a_name_is_looked_for_in_the_folders_of_path() {
        let found = |name: &str, path: &str| {
            let paths = program(name, &[], path).paths();
            paths.iter().map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found("b", "/x:/y"), ["/x/b", "/y/b"]);
        assert_eq!(found("b", ":bin"), ["./b", "./bin/b"]);
        let without = Program { name: "b".into(), args: Vec::new(), env: Vec::new() };
        assert_eq!(without.paths(), [Path::new("/bin/b"), Path::new("/usr/bin/b")]);
    }

    #[test]
    fn a_program_that_is_killed_before_it_has_started_ends_by_that() {
        let running = Running::default();
        running.kill();
        let (theirs, _ours) = Streams::pipes().unwrap();
        let ending = running.run(&program("sleep", &["1000"], "/bin:/usr/bin"), theirs).unwrap();
        assert_eq!(ending, Ending::Signal(Signal::KILL.as_raw()));
        running.kill();
    }

    #[test]
    fn the_end_is_told_also_of_a_program_that_cannot_be_started() {
        let told_of = |name: &str| {
            let (tell, told) = mpsc::channel();
            let on_end = move |ending| tell.send(ending).unwrap();
            start(program(name, &["-c", "exit 7"], "/nowhere:/bin"), on_end).map(drop).unwrap();
            told.recv().unwrap()
        };
        assert_eq!(told_of("sh").unwrap(), Ending::Exit(7));
        assert!(told_of("no-such-program").unwrap_err().is_io(io::ErrorKind::NotFound));
        assert!(told_of("/etc").unwrap_err().is_io(io::ErrorKind::PermissionDenied));
    }
}
