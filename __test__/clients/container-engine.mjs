// A stand-in for docker, podman and kubectl: a program that takes the arguments of their `exec` and runs what it is
// told here, under another root that holds busybox and nothing else. Like the real ones, what it started outlives it,
// and loses its standard input with it.

import { execFile } from "node:child_process";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";

const execute = promisify(execFile);

/** Whose words are told apart by a NUL, and whose calls by an empty word. */
const PROGRAM = (root, log) => `#!/bin/sh
printf '%s\\0' "$@" '' >> '${log}'
[ -e '${log}.failure' ] && { cat '${log}.failure' >&2; rm '${log}.failure'; exit 1; }
user=0:0 dir=/
shift
while [ $# -gt 0 ]; do
  case "$1" in
    -i) shift ;;
    -u) user=$2; shift 2 ;;
    -w) dir=$2; shift 2 ;;
    -n) shift 2 ;;
    *) break ;;
  esac
done
shift
[ "$1" = -c ] && shift 2
[ "$1" = -- ] && shift
run() {
  exec setsid chroot --userspec="$user" '${root}' /bin/sh -c 'cd "$1" && shift && exec "$@"' sh "$dir" "$@"
}
if [ -e '${log}.cut' ]; then
  read -r direction bytes < '${log}.cut'
  rm '${log}.cut'
  printf x >> '${log}.cuts'
  case "$direction" in
    up) head -c "$bytes" | run "$@" ;;
    down) run "$@" | head -c "$bytes" ;;
  esac
  echo "error: unexpected EOF" >&2
  exit 1
fi
exec 3<&0
run "$@" <&3 3<&- &
exec 3<&-
wait "$!"
`;

/** @param {string} folder for the root, the program and its log */
export async function containerEngine(folder) {
  const root = path.join(folder, "root");
  const log = path.join(folder, "log");
  const program = path.join(folder, "engine");
  for (const name of ["bin", "dev", "tmp", "work"]) await mkdir(path.join(root, name), { recursive: true });
  const { stdout: found } = await execute("sh", ["-c", "command -v busybox"]);
  const busybox = found.trim();
  await copyFile(busybox, path.join(root, "bin/busybox"));
  const libraries = await execute("ldd", [busybox]).then(
    ({ stdout }) => stdout.match(/\/\S+/g) ?? [],
    () => [],
  );
  for (const library of libraries) {
    await mkdir(path.join(root, path.dirname(library)), { recursive: true });
    await copyFile(library, path.join(root, library));
  }
  await execute("chroot", [root, "/bin/busybox", "--install", "-s", "/bin"]);
  await execute("mknod", ["-m", "666", path.join(root, "dev/null"), "c", "1", "3"]);
  await execute("mknod", ["-m", "666", path.join(root, "dev/zero"), "c", "1", "5"]);
  await execute("chmod", ["1777", path.join(root, "tmp"), path.join(root, "work")]);
  await writeFile(program, PROGRAM(root, log), { mode: 0o755 });
  return {
    root,
    program,
    /** The arguments of each call so far. */
    async calls() {
      const text = await readFile(log, "utf8").catch(() => "");
      return text
        .split("\0\0")
        .slice(0, -1)
        .map((call) => call.split("\0"));
    },
    /** Has the next call fail with this message, before it reaches the container. */
    async failOnce(message) {
      await writeFile(`${log}.failure`, `${message}\n`);
    },
    /** Has the connection of the next call break after that number of bytes, `up` into the container or `down`. */
    async cutOnce(direction, bytes) {
      await writeFile(`${log}.cut`, `${direction} ${bytes}\n`);
    },
    /** How many connections were broken so far. */
    cuts: async () => (await readFile(`${log}.cuts`, "utf8").catch(() => "")).length,
  };
}
