import { describe, expect, it } from "vitest";
import { breachesOf, circlesOf, findBreaches } from "./rules.mjs";

const CALLS = "only src/fs/ calls the system; add what is missing there";

describe("the rules of the core's layout", () => {
  it("are kept", async () => {
    expect(await findBreaches()).toEqual([]);
  });

  it.each([
    [
      "fs/dir.rs",
      "//! A tour.\nuse napi::bindgen_prelude::*;\n",
      "src/fs/dir.rs:2: only src/node/ may name napi",
    ],
    ["error.rs", "fn f() { unsafe { g() } }\n", "src/error.rs:1: only src/node/ may use unsafe"],
    [
      "merge/plan.rs",
      "use crate::fs::by_path;\n",
      "src/merge/plan.rs:1: the plan is pure: it touches no file",
    ],
    [
      "tree/scan.rs",
      "use crate::{\n    error::{Error, sandbox},\n    merge,\n};\n",
      'src/tree/scan.rs:3: "tree" may not use "merge", which is built on it',
    ],
    [
      "merge/apply.rs",
      "fn f() {\n    crate::sandbox::spec();\n}\n",
      'src/merge/apply.rs:2: "merge" may not use "sandbox", which is built on it',
    ],
    [
      "tree/scan.rs",
      "use crate::merge::{plan::{A, B}, apply};\n",
      'src/tree/scan.rs:1: "tree" may not use "merge", which is built on it',
    ],
    [
      "attic/mod.rs",
      "",
      'src/attic/mod.rs:1: "attic" is no module that __test__/architecture/rules.mjs knows',
    ],
    ["tree/stage.rs", "use rustix::io::Errno;\n", `src/tree/stage.rs:1: ${CALLS}`],
    ["tree/stage.rs", "use std::fs::{self, File};\n", `src/tree/stage.rs:1: ${CALLS}`],
    [
      "git/import.rs",
      "use std::{\n    collections::BTreeMap,\n    fs,\n};\n",
      `src/git/import.rs:3: ${CALLS}`,
    ],
    ["git/import.rs", "fn f() {\n    std::fs::read(path);\n}\n", `src/git/import.rs:2: ${CALLS}`],
    ["node/error.rs", "use std::os::unix::ffi::OsStrExt;\n", `src/node/error.rs:1: ${CALLS}`],
    ["path.rs", "use std::os::unix::fs::MetadataExt;\n", `src/path.rs:1: ${CALLS}`],
    ["tree/scan.rs", "use walkdir::WalkDir;\n", `src/tree/scan.rs:1: ${CALLS}`],
    ["sandbox/send.rs", "fn f() { unix(libc::EIO) }\n", `src/sandbox/send.rs:1: ${CALLS}`],
    ["node/memory.rs", "unsafe { libc::close(0) }\n", `src/node/memory.rs:1: ${CALLS}`],
    ["mirror.rs", "fn f() { libc::malloc_trim(0) }\n", `src/mirror.rs:1: ${CALLS}`],
    ["mirror.rs", "fn f() {\n    if path.exists() {}\n}\n", `src/mirror.rs:2: ${CALLS}`],
    ["mirror.rs", "fn f() { paths.any(Path::is_symlink) }\n", `src/mirror.rs:1: ${CALLS}`],
    [
      "git/objects.rs",
      "use crate::fs::File;\nfn f() { File::open(path) }\n",
      `src/git/objects.rs:2: ${CALLS}`,
    ],
  ])("are broken by %s: %j", (file, source, breach) => {
    expect(breachesOf(file, source)).toEqual([breach]);
  });

  it.each([
    ["node/values.rs", "use napi::Env;\nuse crate::sandbox;\nunsafe { f() }\n"],
    [
      "sandbox/spec.rs",
      "//! Nothing here is unsafe, and nothing knows napi.\nuse crate::{error, fs::Root};\n",
    ],
    ["fs/dir.rs", '#![deny(unsafe_code)]\nconst TEXT: &str = "unsafe napi:: \\" crate::node";\n'],
    [
      "path.rs",
      'const QUOTE: char = \'"\'; const RAW: &str = r#"unsafe "napi""#; fn f<\'a>(_: &\'a str) {}\n',
    ],
    ["node/memory.rs", "unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 1); libc::malloc_trim(0) }\n"],
    ["lib.rs", "pub mod node;\npub use crate::sandbox::prepare;\n"],
    ["fs/stat.rs", "use std::fs::File;\nuse rustix::io::Errno;\n"],
    ["path.rs", "use std::os::unix::ffi::OsStrExt;\n"],
    ["tree/scan.rs", "use crate::fs::{self, by_path};\nfn f() { cursor.read_link(name); fs::stat(); }\n"],
    ["mirror.rs", "use std::{io, path::Path};\n\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n"],
  ])("are kept by %s: %j", (file, source) => {
    expect(breachesOf(file, source)).toEqual([]);
  });
});

describe("files that use one another in a circle", () => {
  it("are reported, with the way back", () => {
    const sources = {
      "merge/apply.rs": "use super::journal::Journal;\n",
      "merge/journal.rs": "use crate::tree::{scan::scan, stage};\n",
      "tree/scan.rs": "fn f() { crate::merge::apply::merge() }\n",
      "tree/stage.rs": "use super::scan::scan;\n",
    };
    const way = "merge/apply.rs uses merge/journal.rs uses tree/scan.rs uses merge/apply.rs";
    expect(circlesOf(sources)).toEqual([`src/merge/apply.rs:1: a circle: ${way}`]);
  });

  it("are not reported if one file only uses the other, or a test uses both", () => {
    const sources = {
      "fs/dir.rs": "use crate::error;\n#[cfg(test)]\nmod tests {\n    use crate::tree::scan;\n}\n",
      "error.rs": "//! Nothing like crate::fs::dir.\n",
      "tree/scan.rs": "use crate::{error::Error, fs::dir::Root};\n",
    };
    expect(circlesOf(sources)).toEqual([]);
  });
});
