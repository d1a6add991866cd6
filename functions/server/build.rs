//! A new migration file must be compiled in, though no source names it.

fn main() {
    for path in ["../../schema/migrations", "../../schema/bootstrap.sql"] {
        println!("cargo:rerun-if-changed={path}");
    }
}
