import { describe, expect, it } from "vitest";
import { breachesOf, findBreaches } from "../../scripts/house-laws.mjs";

describe("the house laws", () => {
  it("are kept", async () => {
    expect(await findBreaches()).toEqual([]);
  });

  it.each([
    [
      "tree/root.rs",
      "//! A tour.\nuse napi::bindgen_prelude::*;\n",
      "src/tree/root.rs:2: only src/node/ may name napi",
    ],
    ["error.rs", "fn f() { unsafe { g() } }\n", "src/error.rs:1: only src/node/ may use unsafe"],
    ["merge/plan.rs", "use std::fs;\n", "src/merge/plan.rs:1: the plan is pure: it touches no file"],
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
    ["attic/mod.rs", "", 'src/attic/mod.rs:1: "attic" is no room that scripts/house-laws.mjs knows'],
  ])("are broken by %s: %j", (file, source, breach) => {
    expect(breachesOf(file, source)).toEqual([breach]);
  });

  it.each([
    ["node/values.rs", "use napi::Env;\nuse crate::sandbox;\nunsafe { f() }\n"],
    [
      "sandbox/spec.rs",
      "//! Nothing here is unsafe, and nothing knows napi.\nuse crate::{error, tree::root};\n",
    ],
    ["tree/root.rs", '#![deny(unsafe_code)]\nconst TEXT: &str = "unsafe napi:: \\" crate::node";\n'],
    [
      "path.rs",
      'const QUOTE: char = \'"\'; const RAW: &str = r#"unsafe "napi""#; fn f<\'a>(_: &\'a str) {}\n',
    ],
    ["lib.rs", "pub mod node;\npub use crate::sandbox::prepare;\n"],
  ])("are kept by %s: %j", (file, source) => {
    expect(breachesOf(file, source)).toEqual([]);
  });
});
