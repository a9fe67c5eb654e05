// The entry for adapter-utils' newest release and that release are interchangeable: each type is assignable to the other's.
// Compiling is the test.

import type * as own from "@paperclipai/sandbox-managed-runtime/adapter-utils";
import type * as releasedGit from "adapter-utils-2026.916.1/git-workspace-sync";
import type { RuntimeSpanRunner } from "adapter-utils-2026.916.1/acpx-engine/startup-timing";
import type * as releasedProgress from "adapter-utils-2026.916.1/runtime-progress";
import type * as released from "adapter-utils-2026.916.1/sandbox-managed-runtime";
import type { resolvePaperclipInstanceRootForAdapter } from "adapter-utils-2026.916.1/server-utils";
import type * as releasedMerge from "adapter-utils-2026.916.1/workspace-restore-merge";
import { interchangeable } from "./interchangeable.js";

// The whole modules: every value that the release exports, under the same name.
type Released = typeof released & typeof releasedMerge;
type Shared = Pick<typeof own, keyof Released>;
interchangeable<Shared, Released>();

// Parameters and results apart: the compiler is lenient with methods' parameters, and is not with these.
type Functions = {
  [Name in keyof Released]: Released[Name] extends (...args: never[]) => unknown ? Name : never;
}[keyof Released];
type ParametersOf<Module> = {
  [Name in Functions & keyof Module]: Module[Name] extends (...args: infer Args) => unknown ? Args : never;
};
type ResultsOf<Module> = {
  [Name in Functions & keyof Module]: Module[Name] extends (...args: never[]) => infer Result
    ? Result
    : never;
};
interchangeable<ParametersOf<Shared>, ParametersOf<Released>>();
interchangeable<ResultsOf<Shared>, ResultsOf<Released>>();

// The exported types.
interchangeable<own.SandboxRemoteExecutionSpec, released.SandboxRemoteExecutionSpec>();
interchangeable<
  own.SandboxManagedRuntimeAssetProvisionContext,
  released.SandboxManagedRuntimeAssetProvisionContext
>();
interchangeable<own.SandboxManagedRuntimeAssetProvision, released.SandboxManagedRuntimeAssetProvision>();
interchangeable<
  own.SandboxManagedRuntimeAssetRestoreContext,
  released.SandboxManagedRuntimeAssetRestoreContext
>();
interchangeable<own.SandboxManagedRuntimeAsset, released.SandboxManagedRuntimeAsset>();
interchangeable<own.ReferencedSourceIgnoreResolution, released.ReferencedSourceIgnoreResolution>();
interchangeable<own.SandboxAdditionalSource, released.SandboxAdditionalSource>();
interchangeable<own.SandboxTransferProgressOptions, released.SandboxTransferProgressOptions>();
interchangeable<own.SandboxSyncFileMapping, released.SandboxSyncFileMapping>();
interchangeable<own.SandboxPostUploadCommand, released.SandboxPostUploadCommand>();
interchangeable<own.SandboxSyncOperation, released.SandboxSyncOperation>();
interchangeable<own.SandboxSyncResult, released.SandboxSyncResult>();
interchangeable<own.SandboxManagedRuntimeClient, released.SandboxManagedRuntimeClient>();
interchangeable<own.PreparedSandboxManagedRuntime, released.PreparedSandboxManagedRuntime>();
interchangeable<own.WorkspaceInboundMode, released.WorkspaceInboundMode>();
interchangeable<own.WorkspaceDurableSeedPaths, released.WorkspaceDurableSeedPaths>();
interchangeable<own.AdditionalSourceStagingFailure, released.AdditionalSourceStagingFailure>();
interchangeable<own.SnapshotEntry, releasedMerge.SnapshotEntry>();
interchangeable<own.DirectorySnapshot, releasedMerge.DirectorySnapshot>();
interchangeable<own.SerializedDirectorySnapshot, releasedMerge.SerializedDirectorySnapshot>();
interchangeable<own.WorkspaceRestoreFailureCode, releasedMerge.WorkspaceRestoreFailureCode>();
interchangeable<own.WorkspaceRestoreOutcome, releasedMerge.WorkspaceRestoreOutcome>();
interchangeable<own.GitWorkspaceSnapshot, releasedGit.GitWorkspaceSnapshot>();
interchangeable<own.RuntimeProgressSink, releasedProgress.RuntimeProgressSink>();
interchangeable<own.RuntimeStatusSink, releasedProgress.RuntimeStatusSink>();
interchangeable<own.RuntimeSpanRunner, RuntimeSpanRunner>();

// Optional fields count too: each interface has the same names.
interchangeable<keyof own.SandboxManagedRuntimeClient, keyof released.SandboxManagedRuntimeClient>();
interchangeable<keyof own.SandboxManagedRuntimeAsset, keyof released.SandboxManagedRuntimeAsset>();
interchangeable<keyof own.SandboxSyncFileMapping, keyof released.SandboxSyncFileMapping>();
interchangeable<
  keyof Parameters<typeof own.prepareSandboxManagedRuntime>[0],
  keyof Parameters<typeof released.prepareSandboxManagedRuntime>[0]
>();

/** The entry accepts what the release's server passes. */
export declare const surroundings: {
  git: typeof releasedGit;
  resolveInstanceRoot: typeof resolvePaperclipInstanceRootForAdapter;
};
surroundings satisfies own.AdapterUtilsSurroundings;
