//! Link arguments of a Node addon (dynamic symbols on macOS, no unloading on Linux).

fn main() {
    napi_build::setup();
}
