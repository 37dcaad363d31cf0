//! Steps in real namespaces.
fn main() {
    slipway_sandbox::init();
}
