//! The L rows of the fault matrix: hostile or damaged model directories are refused in one message that names the place.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use model::{Batch, Checkpoint, DType, Decoder, Directory, Error, Options, Result, Tape, Template, Tokenizer};

/// A copy of a small sound model.
struct Copy(tempfile::TempDir);

impl Copy {
    fn of(case: &str) -> Copy {
        let copy = Copy(tempfile::tempdir().unwrap());
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures/models")
            .join(case);
        for name in ["config.json", "model.safetensors"] {
            fs::copy(source.join(name), copy.path().join(name)).unwrap();
        }
        copy
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), bytes).unwrap();
    }

    fn weights(&self) -> Vec<u8> {
        fs::read(self.path().join("model.safetensors")).unwrap()
    }

    /// Rewrites the header's text, padded to its old length so that offsets stay.
    fn edit_header(&self, edit: impl FnOnce(&str) -> String) {
        let bytes = self.weights();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let text = edit(std::str::from_utf8(&bytes[8..8 + length]).unwrap());
        self.write("model.safetensors", container(text.as_bytes(), &bytes[8 + length..]));
    }

    fn load(&self) -> Result<Decoder> {
        Checkpoint::open(self.path(), &Options::default())?.load()
    }

    #[track_caller]
    fn refused(&self, words: &str) {
        let message = self.load().expect_err(words).to_string();
        assert!(message.contains(words), "{message:?} does not say {words:?}");
        assert!(!message.contains('\n'), "{message:?}");
    }
}

fn container(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

#[test]
fn l_01_pickle_is_refused_by_name_and_by_magic() {
    for name in ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl"] {
        let copy = Copy::of("llama");
        fs::remove_file(copy.path().join("model.safetensors")).unwrap();
        copy.write(name, b"\x80\x02}q\x00.");
        copy.refused("pickle is not read");
        let file = Directory::open(&copy.path().join(name), false).unwrap_err().to_string();
        assert!(file.contains("pickle is not read"), "{file}");
    }
    for magic in [&b"PK\x03\x04rest"[..], b"\x80\x02}q\x00.", b"\x80\x04\x95"] {
        let copy = Copy::of("llama");
        copy.write("model.safetensors", magic);
        copy.refused("pickle is not read");
    }
    let copy = Copy::of("llama");
    copy.write(
        "model.safetensors.index.json",
        r#"{"weight_map":{"a":"pytorch_model.bin"}}"#,
    );
    copy.refused("pickle is not read");
}

#[test]
fn l_02_an_index_cannot_lead_outside_the_directory() {
    let outside = ["../x", "/etc/passwd", "a/../../b", "./../x"].map(|name| (name, "leads outside"));
    let odd = [".", "", "\\u0000", "./x.safetensors", "a//b"].map(|name| (name, "is not a plain path"));
    for (name, cause) in outside.into_iter().chain(odd) {
        let copy = Copy::of("llama");
        copy.write(
            "model.safetensors.index.json",
            format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#),
        );
        copy.refused(cause);
    }
    let copy = Copy::of("llama");
    copy.write(
        "model.safetensors.index.json",
        r#"{"weight_map":{"a":"gone.safetensors"}}"#,
    );
    copy.refused("which is missing");
    copy.write("model.safetensors.index.json", r#"{"weight_map":{"a":"x","a":"y"}}"#);
    copy.refused("duplicate key `a`");
    let many: Vec<_> = (0..5000).map(|i| format!(r#""t{i}":"s{i}.safetensors""#)).collect();
    copy.write(
        "model.safetensors.index.json",
        format!(r#"{{"weight_map":{{{}}}}}"#, many.join(",")),
    );
    copy.refused("more than 4096 shards");
}

#[test]
fn l_02_a_link_that_leaves_the_directory_needs_its_owners_word() {
    let copy = Copy::of("llama");
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("weights");
    fs::rename(copy.path().join("model.safetensors"), &target).unwrap();
    symlink(&target, copy.path().join("model.safetensors")).unwrap();
    copy.refused("outside the model directory");
    let options = Options {
        follow_links: true,
        ..Options::default()
    };
    Checkpoint::open(copy.path(), &options).unwrap().load().unwrap();
}

#[test]
fn a_hugging_face_cache_is_a_model_directory() {
    let copy = Copy::of("llama");
    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshots/abc123"));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    for (index, name) in ["config.json", "model.safetensors"].iter().enumerate() {
        fs::copy(copy.path().join(name), blobs.join(index.to_string())).unwrap();
        symlink(format!("../../blobs/{index}"), snapshot.join(name)).unwrap();
    }
    for path in [cache.path(), &snapshot] {
        Checkpoint::open(path, &Options::default()).unwrap().load().unwrap();
    }
    fs::create_dir_all(cache.path().join("refs")).unwrap();
    fs::create_dir_all(cache.path().join("snapshots/other")).unwrap();
    assert!(
        Directory::open(cache.path(), false)
            .unwrap_err()
            .to_string()
            .contains("several snapshots")
    );
    fs::write(cache.path().join("refs/main"), "abc123\n").unwrap();
    Directory::open(cache.path(), false).unwrap();
}

#[test]
fn l_03_hostile_headers_are_refused() {
    let entry =
        |shape: &str, range: &str| format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{range}}}}}"#);
    let two = |second: &str| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}},"b":{{"dtype":"F32","shape":[1],"data_offsets":{second}}}}}"#
        )
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "too short"),
        (7u64.to_le_bytes().to_vec(), "are there"),
        (u64::MAX.to_le_bytes().to_vec(), "limit"),
        ((99u64 << 20).to_le_bytes().to_vec(), "limit"),
        (container(b"[]", b""), "where an object belongs"),
        (container(b"{\"a\":", b""), "header"),
        (container(&b"[".repeat(50_000), b""), "header"),
        // products that overflow: the header that panics safetensors 0.8
        (
            container(entry("[4294967296,4294967296,4294967296]", "[0,0]").as_bytes(), b""),
            "has shape",
        ),
        (
            container(entry("[9223372036854775808,2]", "[0,0]").as_bytes(), b""),
            "has shape",
        ),
        (
            container(entry("[1]", "[0,18446744073709551615]").as_bytes(), b"1234"),
            "claims bytes",
        ),
        (container(entry("[1]", "[4,0]").as_bytes(), b"1234"), "claims bytes"),
        (container(entry("[-1]", "[0,4]").as_bytes(), b"1234"), "no shape"),
        (container(entry("[2]", "[0,4]").as_bytes(), b"1234"), "has shape"),
        (
            container(entry("[1,1,1,1,1,1,1,1,1]", "[0,4]").as_bytes(), b"1234"),
            "rank above 8",
        ),
        (
            container(entry("[1]", "[0,4]").replace("F32", "F5").as_bytes(), b"1234"),
            "unknown type",
        ),
        (
            container(entry("[1]", "[0,4]").as_bytes(), b"12345678"),
            "belong to no tensor",
        ),
        (container(two("[0,4]").as_bytes(), b"1234"), "overlaps"),
        (container(two("[8,12]").as_bytes(), b"123456781234"), "leaves a hole"),
        (
            container(two("[4,8]").replace("\"b\"", "\"a\"").as_bytes(), b"12345678"),
            "duplicate key `a`",
        ),
    ];
    let copy = Copy::of("llama");
    for (bytes, words) in cases {
        copy.write("model.safetensors", bytes);
        copy.refused(words);
    }
}

#[test]
fn l_04_missing_foreign_and_misshapen_tensors_are_named() {
    const NAME: &str = "model.layers.1.mlp.up_proj.weight";
    let copy = Copy::of("llama");
    copy.edit_header(|text| text.replace(NAME, "model.layers.1.mlp.up_proj.weighs"));
    copy.refused(&format!("tensor {NAME}: is missing"));

    let copy = Copy::of("llama");
    copy.edit_header(|text| {
        text.replace(
            &format!(r#""{NAME}":{{"dtype":"F32","shape":[24,16]"#),
            &format!(r#""{NAME}":{{"dtype":"F32","shape":[16,24]"#),
        )
    });
    copy.refused(&format!("tensor {NAME}: has shape [16, 24], expected [24, 16]"));

    let copy = Copy::of("llama");
    copy.edit_header(|text| {
        text.replace(
            &format!(r#""{NAME}":{{"dtype":"F32""#),
            &format!(r#""{NAME}":{{"dtype":"I32""#),
        )
    });
    copy.refused(&format!("tensor {NAME}: has type I32"));

    // a config of two layers beside the weights of three
    let copy = Copy::of("llama");
    let config = fs::read_to_string(copy.path().join("config.json")).unwrap();
    copy.write(
        "config.json",
        config.replace("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2"),
    );
    copy.refused("model.layers.2.");
    copy.refused("is not part of this architecture");
}

#[test]
fn l_04_a_mixture_lacks_no_part_and_has_none_too_many() {
    for (case, there, instead, said) in [
        (
            "gpt_oss",
            "0.self_attn.sinks",
            "0.self_attn.sinkz",
            "0.self_attn.sinks: is missing",
        ),
        (
            "gpt_oss",
            "1.mlp.experts.gate_up_proj_bias",
            "1.mlp.experts.gate_up_proj_bia5",
            "gate_up_proj_bias: is missing",
        ),
        (
            "gpt_oss",
            "1.mlp.experts.down_proj\"",
            "1.mlp.experts.down_pro_\"",
            "1.mlp.experts.down_proj: is missing",
        ),
        (
            "llama4",
            "0.feed_forward.shared_expert.up_proj",
            "0.feed_forward.shared_expert.up_pro_",
            "shared_expert.up_proj.weight: is missing",
        ),
        (
            "llama4-dense",
            "0.feed_forward.gate_proj",
            "0.feed_forward.gate_pro_",
            "0.feed_forward.gate_proj.weight: is missing",
        ),
    ] {
        let copy = Copy::of(case);
        copy.edit_header(|text| {
            assert!(text.contains(there));
            text.replace(there, instead)
        });
        copy.refused(said);
    }
    let copy = Copy::of("gpt_oss");
    copy.edit_header(|text| text.replace("[6,24,16]", "[6,16,24]"));
    copy.refused("has shape [6, 16, 24], expected [6, 24, 16]");
    let copy = Copy::of("llama4-dense");
    let config = fs::read_to_string(copy.path().join("config.json")).unwrap();
    copy.write(
        "config.json",
        config.replace("\"moe_layers\": [\n    1\n  ]", "\"moe_layers\": []"),
    );
    copy.refused("layers.1.feed_forward.gate_proj.weight: is missing");
}

#[test]
fn a_tied_embedding_may_be_stored_as_the_head_alone() {
    let copy = Copy::of("llama3-rope");
    let before = copy.load().unwrap();
    copy.edit_header(|text| text.replace("model.embed_tokens.weight", "lm_head.weight"));
    let after = copy.load().unwrap();
    let run = |decoder: &Decoder| {
        let normed = decoder
            .forward(&Tape::off(), &Batch::pack(&[[1u32, 2, 3]]), &mut (), None)
            .unwrap();
        decoder.logits(&Tape::off(), &normed).unwrap().to_vec2::<f32>().unwrap()
    };
    assert_eq!(run(&before), run(&after));
}

#[test]
fn a_base_models_names_lack_the_prefix_and_are_read() {
    let copy = Copy::of("gpt2");
    copy.edit_header(|text| text.replace("\"transformer.", "\""));
    copy.load().unwrap();
}

#[test]
fn l_05_an_impossible_config_is_refused_before_any_weight_is_read() {
    let copy = Copy::of("llama");
    copy.write("model.safetensors", b"");
    let config = fs::read_to_string(copy.path().join("config.json")).unwrap();
    copy.write(
        "config.json",
        config.replace("\"hidden_size\": 16", "\"hidden_size\": 0"),
    );
    copy.refused("hidden_size = 0");
    copy.write("config.json", "{");
    copy.refused("config.json");
}

#[test]
fn l_06_hostile_tokenizers_are_refused() {
    let copy = Copy::of("llama");
    let open = || Tokenizer::open(&Directory::open(copy.path(), false).unwrap());
    assert!(open().err().unwrap().to_string().contains("neither tokenizer.json"));
    for bytes in [
        &b"{}"[..],
        b"[",
        b"{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[\"a b\"]}}",
    ] {
        copy.write("tokenizer.json", bytes);
        assert!(matches!(open(), Err(Error::Tokenizer(_))));
    }
    let sparse = fs::File::create(copy.path().join("tokenizer.json")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    assert!(open().err().unwrap().to_string().contains("larger than the limit"));
}

#[test]
fn l_07_weights_that_are_not_finite_are_named() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let copy = Copy::of("llama");
        let mut bytes = copy.weights();
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&value.to_le_bytes());
        copy.write("model.safetensors", bytes);
        copy.refused("at element");
    }
    // sound in f32, too large for f16
    let copy = Copy::of("llama");
    let mut bytes = copy.weights();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&1e30f32.to_le_bytes());
    copy.write("model.safetensors", bytes);
    let options = Options {
        dtype: DType::F16,
        ..Options::default()
    };
    let checkpoint = Checkpoint::open(copy.path(), &options).unwrap();
    let message = checkpoint.load().unwrap_err().to_string();
    assert!(message.contains("beyond the range of F16"), "{message}");
}

#[test]
fn l_08_sequences_the_model_cannot_run_are_refused() {
    let decoder = Copy::of("llama").load().unwrap();
    let run = |ids: &[u32]| {
        decoder
            .forward(&Tape::off(), &Batch::pack(&[&[1][..], ids]), &mut (), None)
            .unwrap_err()
            .to_string()
    };
    assert!(run(&[]).contains("sequence 1: has no tokens"));
    assert!(run(&[48]).contains("token id 48"));
    assert!(run(&[1; 65]).contains("65 tokens long, the model's limit is 64"));
}

#[test]
fn a_chat_template_is_bounded_and_sees_no_files() {
    let render = |text: &str| {
        let copy = Copy::of("llama");
        copy.write("vocab.json", r#"{"a":0}"#);
        copy.write("merges.txt", "");
        copy.write(
            "tokenizer_config.json",
            r#"{"tokenizer_class":"GPT2Tokenizer","bos_token":"a"}"#,
        );
        let tokenizer = Tokenizer::open(&Directory::open(copy.path(), false).unwrap()).unwrap();
        Template::parse(text)?.render(&[("user", " hi ")], &tokenizer, true)
    };
    assert_eq!(
        render("{% for m in messages %}\n  {{ bos_token + m['content'].strip() }}\n{% endfor %}").unwrap(),
        "  ahi\n"
    );
    assert!(render("{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}").is_err());
    assert!(render("{% include '/etc/passwd' %}").is_err());
    assert!(
        render("{{ raise_exception('roles must alternate') }}")
            .unwrap_err()
            .to_string()
            .contains("roles must alternate")
    );
    assert!(render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").is_err());
}
