// What this package and the npm release both have is interchangeable: each type is assignable to the other's, so that
// a value, a client or a callback written for one works with the other. Compiling is the test.

import type * as released from "@paperclipai/adapter-utils/sandbox-managed-runtime";
import type * as releasedMerge from "@paperclipai/adapter-utils/workspace-restore-merge";
import type * as releasedProgress from "@paperclipai/adapter-utils";
import type * as own from "@paperclipai/sandbox-managed-runtime";
import { interchangeable } from "./interchangeable.js";

// The whole modules: every function that the release exports, under the same name.
type Released = typeof released & typeof releasedMerge;
type Shared = Pick<typeof own, keyof Released>;
interchangeable<Shared, Released>();

// Each function by itself, so that a failure names it.
interchangeable<
  typeof own.parseSandboxRemoteExecutionSpec,
  typeof released.parseSandboxRemoteExecutionSpec
>();
interchangeable<
  typeof own.buildSandboxExecutionSessionIdentity,
  typeof released.buildSandboxExecutionSessionIdentity
>();
interchangeable<typeof own.sandboxExecutionSessionMatches, typeof released.sandboxExecutionSessionMatches>();
interchangeable<typeof own.mirrorDirectory, typeof released.mirrorDirectory>();
interchangeable<typeof own.prepareSandboxManagedRuntime, typeof released.prepareSandboxManagedRuntime>();
interchangeable<typeof own.captureDirectorySnapshot, typeof releasedMerge.captureDirectorySnapshot>();
interchangeable<typeof own.mergeDirectoryWithBaseline, typeof releasedMerge.mergeDirectoryWithBaseline>();
interchangeable<typeof own.withDirectoryMergeLock, typeof releasedMerge.withDirectoryMergeLock>();
interchangeable<
  typeof own.directoryEntryMatchesBaseline,
  typeof releasedMerge.directoryEntryMatchesBaseline
>();

// Parameters and results apart: the compiler is lenient with methods' parameters, and is not with these.
type Prepare = typeof own.prepareSandboxManagedRuntime;
type ReleasedPrepare = typeof released.prepareSandboxManagedRuntime;
interchangeable<Parameters<Prepare>, Parameters<ReleasedPrepare>>();
interchangeable<ReturnType<Prepare>, ReturnType<ReleasedPrepare>>();
interchangeable<own.PrepareSandboxManagedRuntimeInput, Parameters<ReleasedPrepare>[0]>();
interchangeable<Parameters<typeof own.mirrorDirectory>, Parameters<typeof released.mirrorDirectory>>();
interchangeable<
  Parameters<typeof own.mergeDirectoryWithBaseline>,
  Parameters<typeof releasedMerge.mergeDirectoryWithBaseline>
>();

// The exported types.
interchangeable<own.SandboxRemoteExecutionSpec, released.SandboxRemoteExecutionSpec>();
interchangeable<own.SandboxManagedRuntimeAsset, released.SandboxManagedRuntimeAsset>();
interchangeable<own.SandboxTransferProgressOptions, released.SandboxTransferProgressOptions>();
interchangeable<own.SandboxManagedRuntimeClient, released.SandboxManagedRuntimeClient>();
interchangeable<own.PreparedSandboxManagedRuntime, released.PreparedSandboxManagedRuntime>();
interchangeable<own.DirectorySnapshot, releasedMerge.DirectorySnapshot>();
interchangeable<own.SnapshotEntry, Parameters<typeof releasedMerge.directoryEntryMatchesBaseline>[2]>();
interchangeable<own.RuntimeProgressSink, releasedProgress.RuntimeProgressSink>();
interchangeable<own.RuntimeStatusSink, releasedProgress.RuntimeStatusSink>();
interchangeable<own.RuntimeStatusUpdate, releasedProgress.RuntimeStatusUpdate>();
interchangeable<own.RuntimeStatusPhase, releasedProgress.RuntimeStatusPhase>();

/** The optional property of a client that the release does not have. */
type OwnAbility = "allowConcurrentSyncOperations";

// Every method of a client and every field of the interfaces that both have, with the same types.
interchangeable<
  Exclude<keyof own.SandboxManagedRuntimeClient, OwnAbility>,
  keyof released.SandboxManagedRuntimeClient
>();
interchangeable<keyof own.PreparedSandboxManagedRuntime, keyof released.PreparedSandboxManagedRuntime>();
