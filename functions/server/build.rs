//! Compiles the migrations in: a new file needs no line in any source.

use std::{env, fs, path::Path};

const FOLDER: &str = "../../schema/migrations";

/// Writes `migrations.rs`: `(version, name, sql)` for each `NNNN_name.sql`, in order.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in [FOLDER, "../../schema/bootstrap.sql"] {
        println!("cargo:rerun-if-changed={path}");
    }
    let mut lines = Vec::new();
    for entry in fs::read_dir(FOLDER)? {
        let path = entry?.path().canonicalize()?;
        let file = path.file_stem().and_then(|stem| stem.to_str()).ok_or("a migration without a name")?;
        let (version, name) = file.split_once('_').ok_or("a migration is named NNNN_name.sql")?;
        let version: i32 = version.parse()?;
        lines.push((version, format!("({version}, {name:?}, include_str!({path:?})),\n")));
    }
    lines.sort();
    let list: String = lines.into_iter().map(|(_, line)| line).collect();
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("migrations.rs"), format!("&[\n{list}]"))?;
    Ok(())
}
