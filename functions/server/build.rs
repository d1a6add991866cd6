//! A new migration file must be compiled in, though no source names it.

fn main() {
    for path in ["../../schema/migrations", "../../schema/bootstrap.sql"] {
        #[expect(clippy::print_stdout, reason = "how a build script speaks to cargo")]
        {
            println!("cargo:rerun-if-changed={path}");
        }
    }
}
