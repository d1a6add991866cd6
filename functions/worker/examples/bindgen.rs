//! Makes JavaScript bindings: `bindgen MODULE.wasm FOLDER`. `cargo xtask edge build` runs it.
//!
//! What the `wasm-bindgen` command does, from the same library and in the version that `Cargo.lock` pins: the
//! two must be equal, and nothing is downloaded.

use std::{env, error::Error, fs, path::PathBuf};

use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let (Some(module), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("bindgen MODULE.wasm FOLDER".into());
    };
    Bindgen::new()
        .input_path(module)
        .out_name("index")
        .module(true)?
        .typescript(false)
        .remove_name_section(true)
        // A panic ends the instance; the next call gets a new one.
        .reset_state_function(true)
        .force_enable_abort_handler(true)
        .generate(&folder)?;
    // Bundlers know the import of a module, but not yet the proposal's word before it.
    let script = folder.join("index.js");
    fs::write(&script, fs::read_to_string(&script)?.replace("import source ", "import "))?;
    Ok(())
}
