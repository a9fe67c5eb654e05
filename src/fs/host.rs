//! This machine, the user of this process, and other processes.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
#[cfg(target_os = "linux")]
use std::time::SystemTime;

use rustix::io::Errno;
use rustix::process::{Pid, geteuid, test_kill_process};
#[cfg(target_os = "linux")]
use rustix::time::{ClockId, clock_gettime};

#[cfg(target_os = "linux")]
use crate::time::unix_millis;

/// The system's error for what may succeed the next time (`EAGAIN`).
#[must_use]
pub fn try_again() -> io::Error {
    io::Error::from_raw_os_error(Errno::AGAIN.raw_os_error())
}

/// Whether this process has root's rights.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// The effective user of this process.
#[must_use]
pub fn user() -> u32 {
    geteuid().as_raw()
}

/// Limits the memory of a process that was just started, where the system can: beyond it the process gets no more. Files that
/// it maps do not count.
pub fn limit_memory(process: u32, bytes: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, prlimit};
        let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) else { return Ok(()) };
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        match prlimit(Some(pid), Resource::Data, limit) {
            // It has ended already.
            Ok(_) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (process, bytes);
    Ok(())
}

/// Gives a pipe as much room as the system allows, up to 1 MiB. Returns how much it takes in one step while it is empty.
pub fn widen_pipe(pipe: &impl AsFd) -> usize {
    #[cfg(target_os = "linux")]
    {
        /// What a pipe has at least, where a user has many.
        const LEAST: usize = 4096;
        use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};
        // Without more, fewer changes fit.
        fcntl_setpipe_size(pipe, 1 << 20).or_else(|_| fcntl_getpipe_size(pipe)).unwrap_or(LEAST)
    }
    #[cfg(not(target_os = "linux"))]
    {
        /// What macOS gives a pipe.
        const USUAL: usize = 16 * 1024;
        let _ = pipe;
        USUAL
    }
}

/// Runs a program in its own process group, so signals to this process's group do not reach it.
pub fn give_own_group(program: &mut Command) {
    program.process_group(0);
}

/// The machine's name.
#[must_use]
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The id of the current boot, on systems that tell it.
#[must_use]
pub fn boot() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

/// The pid namespace of this process, on systems that tell it.
#[must_use]
pub fn pid_namespace() -> Option<String> {
    fs::read_link("/proc/self/ns/pid").ok().map(|name| name.to_string_lossy().into_owned())
}

/// The state of a process, as far as this machine can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// There is none, or nothing but its exit status is left.
    Gone,
    /// It exists.
    Lives(Option<Start>),
}

/// When a process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// In clock ticks since the boot.
    pub ticks: u64,
    /// In milliseconds since 1970, as the clock is set now.
    pub millis: i64,
}

/// Looks a process number up.
#[must_use]
pub fn process(pid: i32) -> Process {
    let Some(number) = Pid::from_raw(pid) else { return Process::Gone };
    // A process that we may not signal is alive.
    if test_kill_process(number) == Err(Errno::SRCH) {
        return Process::Gone;
    }
    // The file system at `/proc` may be that of another pid namespace.
    let is_ours =
        fs::read_link("/proc/self").is_ok_and(|own| own.as_os_str() == &*std::process::id().to_string());
    let stat = if is_ours { fs::read(format!("/proc/{pid}/stat")).ok() } else { None };
    stat.and_then(|stat| read_stat(&stat)).map_or(Process::Lives(None), |stat| {
        if stat.has_ended { Process::Gone } else { Process::Lives(start(stat.started)) }
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// Only its exit status is left, which its parent may never ask for.
    has_ended: bool,
    /// In clock ticks since the boot.
    started: u64,
}

/// Parses `/proc/<pid>/stat`. The second field is the program's name in parentheses, which may contain
/// anything.
fn read_stat(stat: &[u8]) -> Option<Stat> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields: Vec<&str> = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().collect();
    // Fields are counted from 1; the first one here is the third.
    let field = |number: usize| fields.get(number - 3).copied();
    let threads: u64 = field(20)?.parse().ok()?;
    Some(Stat { has_ended: field(3)? == "Z" && threads <= 1, started: field(22)?.parse().ok()? })
}

#[cfg(target_os = "linux")]
fn start(ticks: u64) -> Option<Start> {
    let a_second = rustix::param::clock_ticks_per_second();
    let since_boot = clock_gettime(ClockId::Boottime);
    let millis_since_boot =
        since_boot.tv_sec.checked_mul(1000)?.checked_add(since_boot.tv_nsec / 1_000_000)?;
    let started = i64::try_from(ticks.checked_mul(1000)?.checked_div(a_second)?).ok()?;
    Some(Start { ticks, millis: unix_millis(SystemTime::now()) - millis_since_boot + started })
}

/// Other systems have no such file.
#[cfg(not(target_os = "linux"))]
fn start(_ticks: u64) -> Option<Start> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_zombie_process_is_gone() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        while process(pid) != Process::Gone {
            std::thread::yield_now();
        }
        assert!(child.wait().unwrap().success(), "it was a zombie until now");
    }

    #[test]
    fn the_start_time_is_read_after_any_program_name() {
        let stat = |name: &str, state: &str, threads: u64| {
            format!(
                "7 ({name}) {state} 1 1 1 0 -1 4194304 115 0 0 0 0 0 0 0 20 0 {threads} 0 227027 3133440 363\n"
            )
        };
        for name in ["cat", "a b", ") R 1 1", "\n(("] {
            let read = read_stat(stat(name, "S", 3).as_bytes());
            assert_eq!(read, Some(Stat { has_ended: false, started: 227_027 }), "{name}");
        }
        assert!(read_stat(stat("cat", "Z", 1).as_bytes()).unwrap().has_ended);
        assert!(!read_stat(stat("cat", "Z", 2).as_bytes()).unwrap().has_ended, "other threads of it live");
        for broken in ["", "7 (cat)", "7 (cat) R 1", "7 cat R"] {
            assert_eq!(read_stat(broken.as_bytes()), None, "{broken}");
        }
    }
}
