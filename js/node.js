"use strict";

// The parts of Node that this package uses. An ES module that a bundler made has no `require`, so Node itself is asked;
// `require` stands here for a Node before 20.16, which cannot be asked.

const canAsk = typeof process.getBuiltinModule === "function";

module.exports = {
  buffer: canAsk ? process.getBuiltinModule("node:buffer") : require("node:buffer"),
  fs: canAsk ? process.getBuiltinModule("node:fs") : require("node:fs"),
  module: canAsk ? process.getBuiltinModule("node:module") : require("node:module"),
  path: canAsk ? process.getBuiltinModule("node:path") : require("node:path"),
  util: canAsk ? process.getBuiltinModule("node:util") : require("node:util"),
};
