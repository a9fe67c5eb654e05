//! Programs that clients start on this machine.

use std::ffi::OsString;
use std::sync::Mutex;

use napi::Env;
use napi_derive::napi;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::error::to_napi;
use super::promise::{Promised, promise};
use super::values::{Bytes, argument};
use crate::error::{Error, Result, shown};
use crate::fs::program::{self, Ending, Program, Running, Streams};
use crate::sync::lock;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProgramInput {
    name: Bytes,
    args: Vec<Bytes>,
    env: Vec<(Bytes, Bytes)>,
}

/// A program that was started, or is about to be.
#[napi]
pub struct StartedProgram {
    running: Running,
    streams: Mutex<Option<Streams>>,
    told: Mutex<Option<oneshot::Receiver<Result<Ending>>>>,
}

/// How a program ended: it has one of the two.
#[napi(object)]
pub struct ProgramEnding {
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
}

/// Starts a program in another thread, with pipes as its standard streams.
#[napi]
pub fn start_program(input: String) -> napi::Result<StartedProgram> {
    started(&input).map_err(|error| to_napi(&error))
}

fn started(input: &str) -> Result<StartedProgram> {
    let ProgramInput { name, args, env } = argument("program", input)?;
    let args = args.into_iter().map(|arg| word("args", arg)).collect::<Result<_>>()?;
    let pair = |(name, value)| Ok((word("env", name)?, word("env", value)?));
    let env = env.into_iter().map(pair).collect::<Result<_>>()?;
    let program = Program { name: word("program", name)?, args, env };
    let (tell, told) = oneshot::channel();
    // If this fails, nobody waits for the end.
    let (running, streams) = program::start(program, |ending| drop(tell.send(ending)))?;
    Ok(StartedProgram { running, streams: Mutex::new(Some(streams)), told: Mutex::new(Some(told)) })
}

/// A text that can be passed to a program.
fn word(argument: &str, Bytes(text): Bytes) -> Result<OsString> {
    if text.contains(&0) {
        return Err(Error::InvalidArgValue {
            argument: argument.to_owned(),
            reason: "a program cannot be passed a text with a NUL".to_owned(),
            received: shown(&text),
        });
    }
    Ok(Bytes(text).into_path().into_os_string())
}

#[napi]
impl StartedProgram {
    /// The file descriptors of our ends of its standard input, output and error output. The caller has to close them.
    /// Empty from the second call on.
    #[napi]
    pub fn take_streams(&self) -> Vec<i32> {
        lock(&self.streams).take().map_or_else(Vec::new, |streams| streams.into_numbers().to_vec())
    }

    /// Kills it, unless it has ended.
    #[napi]
    pub fn kill(&self) {
        self.running.kill();
    }

    /// Resolves once it has ended. Rejects if it could not be started. May be called once.
    #[napi]
    pub fn ended<'env>(&self, env: &'env Env) -> Promised<'env, ProgramEnding> {
        let told = lock(&self.told).take();
        promise(env, async {
            let defect = |what: &str| to_napi(&Error::Internal(what.to_owned()));
            let told = told.ok_or_else(|| defect("the end of a program was asked for twice"))?;
            let ending = told.await.map_err(|_| defect("a thread that waits for a program died"))?;
            ending.map(ProgramEnding::from).map_err(|error| to_napi(&error))
        })
    }
}

impl From<Ending> for ProgramEnding {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Exit(code) => Self { exit_code: Some(code), signal: None },
            Ending::Signal(number) => Self { exit_code: None, signal: Some(number) },
        }
    }
}
