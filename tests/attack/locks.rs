//! The workspace's lock between processes that cannot see each other: in pid namespaces of their own, on one volume.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime};

use sandbox_managed_runtime::merge::lock::{Attempt, MergeLock, RENEWED_FOR};

use crate::place::Place;

const WHERE: &str = "ATTACK_LOCK";

/// A process in a pid namespace of its own, where it is process 1, that tries to take the lock and holds it.
struct Elsewhere {
    process: Child,
    /// What else it says; without a reader it would fail on saying it.
    said: Lines<BufReader<ChildStdout>>,
}

impl Elsewhere {
    /// Starts it, and tells whether it has the lock.
    fn start(place: &Place) -> (Self, bool) {
        let mut process = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "locks::a_lock_held_in_a_process_of_its_own",
                "--nocapture",
                "--test-threads=1",
            ])
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

    /// Lets it give the lock back.
    fn finish(mut self) {
        self.process.stdin.take().unwrap().write_all(b"\n").unwrap();
        let said: Vec<_> = self.said.map(Result::unwrap).collect();
        assert!(self.process.wait().unwrap().success(), "{said:?}");
    }

    fn kill(mut self) {
        // As long as it can be written to, it does not give the lock back by itself.
        let input = self.process.stdin.take();
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        // Nobody is left who could say more.
        let _said: Vec<_> = self.said.collect();
        drop(input);
    }
}

/// The other process does this where it is told to, and otherwise it is a test like any.
#[test]
fn a_lock_held_in_a_process_of_its_own() {
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
fn no_living_lock_is_taken_over_across_pid_namespaces() {
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
fn a_lock_whose_holder_died_in_another_pid_namespace_is_free_once_it_is_not_renewed() {
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
