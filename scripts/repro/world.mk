# The little world: a corpus, a tokenizer, instructions, safety data and questions, all made by the program `world`; a base model of
# 960,096 parameters, which ships in base/.
TOTAL ?= 1500
TRAIN ?= --epochs 2 --batch-size 16 --lr 1e-3
NEW_TOKENS ?= 40
PAIRS ?= 60
DEVICE ?= cpu
GENERATE ?=
JUDGE ?= --judge flowlens
SCORE ?=
WORLD ?=
GENERAL := $(OUT)/world/general.jsonl
SAFETY := $(OUT)/world/safety.jsonl
BENCHES := world
BENCH_world = $(OUT)/world/prompts.csv --map id=id,prompt=prompt,label=label,kind=type
QUESTIONS := $(OUT)/world/skills.jsonl
ABOUT := world.html
TRIED := tried.tsv

$(OUT)/world/prompts.csv: | $(OUT)/settings.json
	rm -rf $(OUT)/world
	world $(OUT)/world $(WORLD)
$(GENERAL) $(SAFETY) $(QUESTIONS): $(OUT)/world/prompts.csv

# BASE=shipped starts from base/, if it was made from this very world; BASE=train makes a base model here.
BASE ?= shipped
PRETRAIN ?= --epochs 3 --batch-size 32 --lr 3e-3
pretrain = vcl-train --init $(OUT)/world/init/config.json --tokenizer $(OUT)/world/init --data $(OUT)/world/corpus.jsonl --field text \
    $(PRETRAIN) --eval $(OUT)/world/corpus-held-out.jsonl --store-dtype bf16 --resume -o $(OUT)/base > /dev/null
MADE_FROM := corpus.jsonl corpus-held-out.jsonl init/config.json init/tokenizer.json init/tokenizer_config.json

ifeq ($(BASE),shipped)
$(OUT)/base/config.json: $(OUT)/world/prompts.csv base/world.sha256
	@cd $(OUT)/world && sha256sum --check --quiet $(CURDIR)/base/world.sha256 || { \
	    echo 'scripts/repro/base was trained on another world: take BASE=train, or make it anew with `make base`' >&2; exit 3; }
	mkdir -p $(@D)
	cp base/*.json base/model.safetensors $(@D)
else
$(OUT)/base/config.json: $(OUT)/world/prompts.csv
	$(pretrain)
endif

# The shipped base model, anew: the same bits on the same kernel (made.json says which), about half a minute on two cores.
base: $(OUT)/world/prompts.csv
	rm -rf $(OUT)/base
	$(pretrain)
	mkdir -p base
	cp $(OUT)/base/{config,generation_config,tokenizer,tokenizer_config}.json $(OUT)/base/model.safetensors base
	cd $(OUT)/world && sha256sum $(MADE_FROM) > $(CURDIR)/base/world.sha256
	$(held-out-loss) | report base $(OUT)/base/run.json > base/made.json

# A step of rate 1e-30 changes no f32 weight, so this is the held-out loss of what is stored.
held-out-loss = vcl-train --model base --data $(OUT)/world/corpus-held-out.jsonl --field text --steps 1 --lr 1e-30 --batch-size 1 \
    --eval $(OUT)/world/corpus-held-out.jsonl --force -o $(OUT)/check-base

check-base: $(OUT)/world/prompts.csv
	cd $(OUT)/world && sha256sum --check --quiet $(CURDIR)/base/world.sha256
	@$(held-out-loss) | report base --check base/made.json
