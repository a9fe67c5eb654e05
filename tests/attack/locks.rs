//! The workspace's lock between processes in different pid namespaces, on one volume.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime};

use sandbox_managed_runtime::merge::lock::{Attempt, MergeLock, RENEWED_FOR};

use crate::place::Place;

const WHERE: &str = "ATTACK_LOCK";

/// A process in its own pid namespace, where it has number 1. It tries to take the lock and holds it.
struct Elsewhere {
    process: Child,
    /// The rest of its output, which must be read so that writing it does not fail.
    said: Lines<BufReader<ChildStdout>>,
}

impl Elsewhere {
    /// Starts it, and returns whether it has the lock.
    fn start(place: &Place) -> (Self, bool) {
        let mut process = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "locks::a_lock_held_in_its_own_process", "--nocapture", "--test-threads=1"])
            .env(WHERE, place.workspace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let answer = said
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| line.rsplit_once("lock: ").map(|(_, answer)| answer.to_owned()))
            .expect("it says whether it has the lock");
        (Self { process, said }, answer == "taken")
    }

    /// Makes it release the lock.
    fn finish(mut self) {
        self.process.stdin.take().unwrap().write_all(b"\n").unwrap();
        let said: Vec<_> = self.said.map(Result::unwrap).collect();
        assert!(self.process.wait().unwrap().success(), "{said:?}");
    }

    fn kill(mut self) {
        // As long as its input is open, it does not release the lock by itself.
        let input = self.process.stdin.take();
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        // Nobody is left to report an error to.
        let _said: Vec<_> = self.said.collect();
        drop(input);
    }
}

/// The work of the other process. In an ordinary test run this does nothing.
#[test]
fn a_lock_held_in_its_own_process() {
    if let Some(workspace) = std::env::var_os(WHERE) {
        assert_eq!(std::process::id(), 1);
        let attempt = MergeLock::try_acquire(Path::new(&workspace)).unwrap();
        println!("lock: {}", if matches!(attempt, Attempt::Taken(_)) { "taken" } else { "held" });
        std::io::stdin().read_line(&mut String::new()).unwrap();
        return;
    }
    let place = Place::new();
    let (other, taken) = Elsewhere::start(&place);
    assert!(taken);
    other.finish();
    assert!(is_free(&place));
}

fn is_free(place: &Place) -> bool {
    matches!(MergeLock::try_acquire(&place.workspace()).unwrap(), Attempt::Taken(_))
}

#[test]
fn a_held_lock_is_not_taken_over_across_pid_namespaces() {
    let place = Place::new();
    let (first, taken) = Elsewhere::start(&place);
    assert!(taken);
    assert!(!is_free(&place), "not from here, where process 1 is another and its own number is unknown");
    let (second, taken) = Elsewhere::start(&place);
    assert!(!taken, "nor from a third place, where process 1 is the one that asks");
    second.finish();
    first.finish();

    let Attempt::Taken(ours) = MergeLock::try_acquire(&place.workspace()).unwrap() else {
        panic!("it is free again");
    };
    let (other, taken) = Elsewhere::start(&place);
    assert!(!taken, "nor ours, of a process that does not exist there");
    other.finish();
    ours.release().unwrap();
    assert!(is_free(&place));
}

#[test]
fn a_dead_holders_lock_in_another_pid_namespace_is_free_once_it_is_no_longer_renewed() {
    let place = Place::new();
    let (other, taken) = Elsewhere::start(&place);
    assert!(taken);
    other.kill();
    assert!(!is_free(&place), "it may live");
    let owner = place.root().join("workspace.paperclip-restore.lock/owner.json");
    let owner = fs::File::options().write(true).open(owner).unwrap();
    owner.set_modified(SystemTime::now() - RENEWED_FOR - Duration::from_secs(1)).unwrap();
    assert!(is_free(&place));
}
