//! The holder of a lock: what its `owner.json` says about a process, and whether that process is still alive.
//!
//! A process number alone does not identify a process. After a crash another process may have the number; in
//! a container that is even likely, because the first process always has number 1. And in two pid namespaces,
//! or on two hosts that share a volume, one number means two processes. So the record also has the host, its
//! boot, the pid namespace and the start time of the process.

use std::sync::LazyLock;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::fs::host::{self, Process, process};
use crate::time::{parse_utc_timestamp, unix_millis, utc_timestamp};

/// How far in the future a record's time may be, in milliseconds. The clocks of two hosts differ a little.
const FUTURE: i64 = 60_000;

/// How much later than its record a process may seem to have started, in milliseconds. Start times are
/// counted in ticks of 10 ms.
const TICKS: i64 = 100;

/// The content of `owner.json`. The TypeScript module writes and reads the first two fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pid: i32,
    created_at: String,
    #[serde(flatten)]
    place: Place,
    /// When the process started, in clock ticks since the boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<u64>,
}

/// The scope of a process number. What is unknown is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    #[serde(rename = "pidNamespace", skip_serializing_if = "Option::is_none")]
    pids: Option<String>,
}

/// What is known about the holder of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// `owner.json` names no process: the age of the lock decides.
    Nobody,
    /// Its process has ended.
    Dead,
    /// Held by this process, which is alive.
    Lives(u32),
    /// Held by a process that cannot be checked from here. It counts as alive as long as it renews the lock.
    OutOfSight(u32),
}

impl Record {
    /// The record of this process, now.
    #[must_use]
    pub fn ours() -> Self {
        let pid = std::process::id().cast_signed();
        let started = match process(pid) {
            Process::Lives(Some(start)) => Some(start.ticks),
            _ => None,
        };
        Self { pid, created_at: utc_timestamp(SystemTime::now()), place: Place::here().clone(), started }
    }

    /// Parses the content of `owner.json`. `None` if that names no process, for whatever reason.
    #[must_use]
    pub fn read(text: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(text).ok()?;
        let string = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let pid =
            value.get("pid")?.as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0)?;
        Some(Self {
            pid,
            created_at: string("createdAt").unwrap_or_default(),
            place: Place { host: string("host"), boot: string("boot"), pids: string("pidNamespace") },
            started: value.get("started").and_then(Value::as_u64),
        })
    }

    /// The content of `owner.json`.
    pub fn text(&self) -> Result<String> {
        let text = serde_json::to_string(self).map_err(|error| Error::Internal(error.to_string()))?;
        Ok(text + "\n")
    }

    /// Judges the record at a place and time. `process` tells what is known about a process number there.
    #[must_use]
    pub fn judge(&self, here: &Place, now: i64, process: impl FnOnce(i32) -> Process) -> Holder {
        let created_at = parse_utc_timestamp(&self.created_at);
        if created_at.is_some_and(|created_at| created_at > now.saturating_add(FUTURE)) {
            return Holder::Nobody;
        }
        let pid = self.pid.unsigned_abs();
        let theirs = &self.place;
        let differs = |said: &Option<String>, ours: &Option<String>| said.is_some() && said != ours;
        if differs(&theirs.host, &here.host)
            || differs(&theirs.boot, &here.boot)
            || differs(&theirs.pids, &here.pids)
        {
            return Holder::OutOfSight(pid);
        }
        let is_other_process = match process(self.pid) {
            Process::Gone => return Holder::Dead,
            Process::Lives(None) => false,
            Process::Lives(Some(start)) => match (self.started, created_at) {
                // Within one boot this is exact, whatever happened to the clock.
                (Some(started), _) if theirs.boot.is_some() => started != start.ticks,
                (_, Some(created_at)) => start.millis > created_at.saturating_add(TICKS),
                (_, None) => false,
            },
        };
        if is_other_process { Holder::Dead } else { Holder::Lives(pid) }
    }

    /// Judges the record here and now.
    #[must_use]
    pub fn judge_here(&self) -> Holder {
        self.judge(Place::here(), unix_millis(SystemTime::now()), process)
    }
}

impl Place {
    /// The place of this process.
    fn here() -> &'static Self {
        static HERE: LazyLock<Place> = LazyLock::new(|| Place {
            host: Some(host::name()),
            boot: host::boot(),
            pids: host::pid_namespace(),
        });
        &HERE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::host::Start;

    const NOW: i64 = 1_767_225_600_000;
    const CREATED: &str = "2025-12-31T23:00:00.000Z";
    const CREATED_MS: i64 = NOW - 3_600_000;

    fn place(host: &str, boot: &str, pids: &str) -> Place {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Place { host: some(host), boot: some(boot), pids: some(pids) }
    }

    fn judged(record: &str, here: &Place, process: Process) -> Holder {
        let record = Record::read(record.as_bytes()).unwrap();
        record.judge(here, NOW, |pid| {
            assert_eq!(pid, 7);
            process
        })
    }

    #[test]
    fn a_record_from_this_host_is_judged_by_its_process() {
        let here = place("a", "b", "p");
        let ours = |more: &str| {
            format!(r#"{{"pid":7,"createdAt":"{CREATED}","host":"a","boot":"b","pidNamespace":"p"{more}}}"#)
        };
        let of_typescript = format!(r#"{{"pid":7,"createdAt":"{CREATED}"}}"#);
        let lives = |ticks, millis| Process::Lives(Some(Start { ticks, millis }));
        for (record, process, holder) in [
            (ours(""), Process::Gone, Holder::Dead),
            (ours(""), Process::Lives(None), Holder::Lives(7)),
            (ours(""), lives(5, CREATED_MS), Holder::Lives(7)),
            (ours(""), lives(5, CREATED_MS + TICKS), Holder::Lives(7)),
            (ours(""), lives(5, CREATED_MS + TICKS + 1), Holder::Dead),
            // Its own start time counts, not the time that the clock was set to since.
            (ours(r#","started":5"#), lives(5, NOW), Holder::Lives(7)),
            (ours(r#","started":5"#), lives(6, CREATED_MS - 10), Holder::Dead),
            (ours(r#","started":5"#), Process::Lives(None), Holder::Lives(7)),
            (ours(r#","started":5"#), Process::Gone, Holder::Dead),
            (of_typescript.clone(), Process::Gone, Holder::Dead),
            (of_typescript.clone(), Process::Lives(None), Holder::Lives(7)),
            (of_typescript.clone(), lives(5, CREATED_MS), Holder::Lives(7)),
            (of_typescript, lives(5, CREATED_MS + 1000), Holder::Dead),
            (r#"{"pid":7,"createdAt":""}"#.to_owned(), lives(5, NOW), Holder::Lives(7)),
            (r#"{"pid":7,"createdAt":5}"#.to_owned(), lives(5, NOW), Holder::Lives(7)),
            (r#"{"pid":7}"#.to_owned(), lives(5, NOW), Holder::Lives(7)),
            // Ticks are comparable within one boot only.
            (r#"{"pid":7,"started":5}"#.to_owned(), lives(6, NOW), Holder::Lives(7)),
        ] {
            assert_eq!(judged(&record, &here, process), holder, "{record} {process:?}");
        }
    }

    #[test]
    fn a_process_on_another_host_is_not_judged_by_its_number() {
        let here = place("a", "b", "p");
        for (record, here) in [
            (r#""host":"other""#, &here),
            (r#""host":"a","boot":"other""#, &here),
            (r#""host":"a","boot":"b","pidNamespace":"other""#, &here),
            (r#""pidNamespace":"other""#, &here),
            (r#""host":"a","boot":"b""#, &place("a", "", "")),
            (r#""host":"a","pidNamespace":"p""#, &place("a", "b", "")),
        ] {
            let record = format!(r#"{{"pid":7,"createdAt":"{CREATED}",{record}}}"#);
            let unseen = |_| panic!("its number means nothing here");
            let holder = Record::read(record.as_bytes()).unwrap().judge(here, NOW, unseen);
            assert_eq!(holder, Holder::OutOfSight(7), "{record}");
        }
        for record in ["", r#","host":"a""#, r#","host":"a","boot":"b","pidNamespace":"p""#] {
            let record = format!(r#"{{"pid":7,"createdAt":"{CREATED}"{record}}}"#);
            assert_eq!(judged(&record, &here, Process::Lives(None)), Holder::Lives(7), "{record}");
        }
    }

    #[test]
    fn a_record_from_the_future_names_no_process() {
        for (created_at, is_nobody) in [
            ("2026-01-01T00:00:59.000Z", false),
            ("2026-01-01T00:01:00.000Z", false),
            ("2026-01-01T00:01:00.001Z", true),
            ("9999-12-31T23:59:59.999Z", true),
        ] {
            let record = format!(r#"{{"pid":7,"createdAt":"{created_at}"}}"#);
            let holder = judged(&record, &Place::default(), Process::Lives(None));
            assert_eq!(holder == Holder::Nobody, is_nobody, "{created_at}: {holder:?}");
        }
    }

    #[test]
    fn text_that_names_no_process_is_not_a_record() {
        for text in [
            "",
            "null",
            "5",
            "{}",
            r#"{"pid":0}"#,
            r#"{"pid":-5}"#,
            r#"{"pid":"7"}"#,
            r#"{"pid":1.5}"#,
            r#"{"pid":4294967297}"#,
        ] {
            assert_eq!(Record::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn our_own_record_reads_as_alive_and_has_the_typescript_modules_format() {
        let ours = Record::ours();
        let text = ours.text().unwrap();
        assert!(text.starts_with(&format!(r#"{{"pid":{},"createdAt":"20"#, std::process::id())), "{text}");
        assert!(text.ends_with("}\n"), "{text}");
        let read = Record::read(text.as_bytes()).unwrap();
        assert_eq!(read, ours);
        assert_eq!(read.judge_here(), Holder::Lives(std::process::id()));
        // An older record with our process number, as after a crash in a container.
        let before =
            Record { created_at: "2020-01-01T00:00:00.000Z".to_owned(), started: None, ..ours.clone() };
        if cfg!(target_os = "linux") {
            assert_eq!(before.judge_here(), Holder::Dead);
            assert_eq!(Record { started: Some(1), ..ours }.judge_here(), Holder::Dead);
        }
    }
}
