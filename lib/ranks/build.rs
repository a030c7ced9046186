//! With the feature `mpi`: compiles the C part with MPI's own compiler, and links what that compiler links.

fn main() {
    #[cfg(feature = "mpi")]
    mpi();
}

#[cfg(feature = "mpi")]
fn mpi() {
    println!("cargo::rerun-if-env-changed=MPICC");
    println!("cargo::rerun-if-changed=src/mpi.c");
    let compiler = std::env::var("MPICC").unwrap_or_else(|_| "mpicc".into());
    cc::Build::new()
        .compiler(&compiler)
        .file("src/mpi.c")
        .compile("ranks_mpi");
    for word in link_words(&compiler).split_whitespace() {
        match word.split_at_checked(2) {
            Some(("-L", path)) => println!("cargo::rustc-link-search=native={path}"),
            Some(("-l", name)) => println!("cargo::rustc-link-lib={name}"),
            _ => {}
        }
    }
}

/// How the compiler links: Open MPI says it one way, MPICH and its relatives another.
#[cfg(feature = "mpi")]
fn link_words(compiler: &str) -> String {
    for flag in ["--showme:link", "-link_info"] {
        let said = std::process::Command::new(compiler).arg(flag).output();
        if let Some(said) = said.ok().filter(|said| said.status.success()) {
            return String::from_utf8_lossy(&said.stdout).into_owned();
        }
    }
    panic!("{compiler} does not say how it links: is it the compiler of an MPI? MPICC names another");
}
