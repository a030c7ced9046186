# The steps that a replication on a real model has beside those of the Makefile: its data are drawn from published files, and its settings
# are chosen by the rules of protocol.md.

file_of = $(DATA)/$(word 2,$(subst =, ,$(filter $(1)=%,$(SOURCES))))
GENERAL_SOURCES := $(filter-out safety,$(foreach source,$(SOURCES),$(firstword $(subst =, ,$(source)))))

$(OUT)/data/checked: smollm2.sha256 | $(OUT)/settings.json $(OUT)/data/
	cd $(DATA) && sha256sum --check --quiet $(CURDIR)/smollm2.sha256
	touch $@
$(SAFETY): $(OUT)/data/checked
	report rows --source safety --part train $(call file_of,safety) > $@.part
	mv $@.part $@
$(GENERAL): $(OUT)/data/checked
	{ $(foreach source,$(GENERAL_SOURCES),report rows --source $(source) --limit $(ROWS) --part train $(call file_of,$(source)); ) } > $@.part
	mv $@.part $@
$(LIKE_SAFETY): $(OUT)/data/checked $(SAFETY)
	{ $(foreach source,$(GENERAL_SOURCES),report rows --source $(source) --part train $(call file_of,$(source)); ) } > $@.pool
	report matched $@.pool --like $(SAFETY) > $@.part
	mv $@.part $@
$(HELD_OUT): $(OUT)/data/checked
	{ report rows --source safety --part held-out $(call file_of,safety); \
	  $(foreach source,$(GENERAL_SOURCES),report rows --source $(source) --limit $(ROWS) --part held-out $(call file_of,$(source)); ) } > $@.part
	mv $@.part $@

# A model that is no directory is laid out as one.
$(OUT)/base/config.json: | $(OUT)/settings.json
	$(if $(MODEL),,$(error MODEL is needed: scripts/models/smollm2 DIR, then MODEL=DIR/model.gguf))
	lm-merge --model $(MODEL) --force -o $(@D)

# Step 1: rate and epochs. `--lr 1e-4 --epochs 1` of lr-1e-4-epochs-1.
rate_flags = $(subst lr-,--lr ,$(subst -epochs-, --epochs ,$(1)))
$(OUT)/rate/%/config.json: $(START)/config.json $(GENERAL) $(SAFETY) $(HELD_OUT) | $(OUT)/rate/
	$(call train,0.5,$(FIRST),$(GENERAL),$(TRAIN_ANY) $(call rate_flags,$*)) --device $(DEVICE) --resume -o $(@D) > /dev/null
	rm -rf $(@D)/checkpoints $(@D)/model*.safetensors
$(OUT)/chosen/rate: $(RATES:%=$(OUT)/rate/%/config.json) | $(OUT)/chosen/
	report choose-rate -- $(foreach rate,$(RATES),'$(call rate_flags,$(rate))=$(OUT)/rate/$(rate)/metrics.jsonl') > $@.part
	mv $@.part $@
$(RUNS:%=$(OUT)/models/%/config.json): $(OUT)/chosen/rate

# Reported: XSTest, and 300 of OR-Bench that are not for development. To develop on: 200 of OR-Bench, 200 of WildGuardTest.
$(OUT)/bench/%.all: $(OUT)/data/checked | $(OUT)/bench/
	refusal-eval prompts --bench $*=$(BENCH_$*) --force -o $@
$(OUT)/bench/orbench.jsonl: $(OUT)/bench/orbench.all
	report pick $< --skip 200 --take 300 > $@.part
	mv $@.part $@
$(OUT)/develop.jsonl: $(OUT)/bench/orbench.all $(OUT)/bench/wildguard.all
	for file in $^; do report pick $$file --take 200; done > $@.part
	mv $@.part $@

# The loss that is chosen in a sign, by the refusals of development prompts: of the plain run, and of one run for each gamma.
$(OUT)/develop/%.jsonl: $(OUT)/models/%/config.json $(OUT)/develop.jsonl | $(OUT)/develop/
	lm-gen --model $(<D) --device $(DEVICE) --max-new-tokens $(NEW_TOKENS) $(GENERATE) --force -o $@.answers $(OUT)/develop.jsonl
	refusal-eval judge $(JUDGE) $@.answers | refusal-eval report --force -o $@
choice = $(OUT)/models/$(1)/metrics.jsonl,$(OUT)/develop/$(1).jsonl
define choose-cure
$(OUT)/chosen/$(1): $(foreach run,$(UNCURED) $(TRIED_$(1)),$(OUT)/develop/$(run).jsonl) | $(OUT)/chosen/
	report choose-cure --plain $(call choice,$(UNCURED)) --otherwise '$(call point,$(K),0.5,$(WINDOW))$(,)sign=$(1)' \
	    $(foreach run,$(TRIED_$(1)),'$(loss_$(run))=$(call choice,$(run))') > $$@.part
	mv $$@.part $$@
$(foreach seed,$(SEEDS),$(OUT)/settings/$(1)-$(CURE)-seed-$(seed).json): $(OUT)/chosen/$(1)
endef
$(foreach sign,$(SIGNS),$(eval $(call choose-cure,$(sign))))

# Directions of the plain models, and what their choice was based on. What looks harmful and is harmless is OR-Bench's part to develop on.
$(OUT)/steer/pseudo-harmful.jsonl: $(OUT)/bench/orbench.all | $(OUT)/steer/
	report pick $< --take 200 > $@.part
	mv $@.part $@
PROMPTS_OF_SEARCH := $(OUT)/bench/harmful.all $(OUT)/bench/harmless.all $(OUT)/steer/pseudo-harmful.jsonl
search = --model $(<D) --device $(DEVICE) --harmful $(OUT)/bench/harmful.all --harmless $(OUT)/bench/harmless.all $(SEARCH)
# Where the rules discard every candidate (exit code 1) the records of the search stay, and the row is left out from then on.
define direction
steer-vec $(1) $(search) $(2) --force -o $@ > $(@:acts=searching) || { code=$$?; \
    if [ $$code = 1 ]; then mv $(@:acts=searching) $(@:acts=none); echo "$(@:acts=none): no direction passes; make again leaves its row out" >&2; fi; exit $$code; }
mv $(@:acts=searching) $(@:acts=jsonl)
endef
$(OUT)/steer/selected-%.acts: $(OUT)/models/%/config.json $(PROMPTS_OF_SEARCH) | $(OUT)/steer/
	$(call direction,select)
$(OUT)/steer/surgical-%.acts: $(OUT)/models/%/config.json $(PROMPTS_OF_SEARCH) | $(OUT)/steer/
	$(call direction,surgical,--pseudo-harmful $(OUT)/steer/pseudo-harmful.jsonl)

# What the base model itself says: the prompts with and without their last question mark, and how likely it finds a quarter of the answers.
$(OUT)/acts/base-whole.acts $(OUT)/acts/base-cut.acts: $(START)/config.json $(OUT)/bench/xstest.jsonl | $(OUT)/acts/
	resid-dump --model $(<D) --device $(DEVICE) $(if $(findstring cut,$@),--strip-punct) --positions last --force -o $@ $(word 2,$^) > /dev/null
$(OUT)/stability.jsonl: $(OUT)/acts/base-whole.acts $(OUT)/acts/base-cut.acts
	flowlens-pca --stability $^ --layout concat > $@.part
	mv $@.part $@
$(OUT)/scored/%.jsonl: $(OUT)/data/%.jsonl $(START)/config.json | $(OUT)/scored/
	lm-gen --model $(patsubst %/,%,$(dir $(word 2,$^))) --device $(DEVICE) $(GENERATE) --score --shard 0/4 --force -o $@ $<
# Of a fine-tuned model: the path of every prompt, and the borders between harmless and harmful ones beside the base model's.
$(OUT)/paths/%.jsonl: $(OUT)/acts/%.acts | $(OUT)/paths/
	flowlens-pca $< --prompts all > $@.part
	mv $@.part $@
$(OUT)/borders.jsonl: $(START)/config.json $(OUT)/models/$(UNCURED)/config.json $(OUT)/prompts.jsonl
	$(regions) > $@.part
	mv $@.part $@

# What the runs that there are say of each claim.
.PHONY: claims
claims: $(OUT)/claims.jsonl
$(OUT)/entropy/%.jsonl: $(OUT)/data/%.jsonl | $(OUT)/entropy/
	ds-entropy --view completion --at 10000 $< --force -o $@
there_is = $(addprefix $(1) ,$(wildcard $(2)))
$(OUT)/claims.jsonl: $(OUT)/entropy/safety.jsonl $(OUT)/entropy/general.jsonl $(OUT)/stability.jsonl $(OUT)/scored/safety.jsonl \
    $(OUT)/scored/general.jsonl $(OUT)/prompts.jsonl FORCE
	report claims $(wildcard $(OUT)/summaries/*.jsonl) --verdicts $(OUT)/verdicts --safety $< --general $(word 2,$^) \
	    --stability $(word 3,$^) --scored-safety $(word 4,$^) --scored-general $(word 5,$^) --prompts $(word 6,$^) \
	    $(call there_is,--paths,$(OUT)/paths/$(MOST).jsonl) $(call there_is,--regions,$(OUT)/borders.jsonl) > $@.part
	mv $@.part $@

# Why, in part: how large the loss's gradient is beside the data's. One step from the base model and from the plain one for each gamma, kept as its
# record alone. Without the loss it is the data's gradient, and with a gamma of a million the loss's.
GRADIENT_GAMMAS := 0 $(GAMMAS) 1e6
one-step = $(subst --eval $(HELD_OUT),,$(subst --model $(START),--model $$start,$(call train,$(CURE),$(FIRST),$(GENERAL),$(TRAIN)))) --steps 1
told-of-step := select(.type == "metric" and .grad_norm) | {start: $$start, gamma: .aux.vcl.gamma, loss, loss_total, grad_norm, c_k: .aux.vcl.c_k}
$(OUT)/gradients.jsonl: $(START)/config.json $(OUT)/models/$(UNCURED)/config.json $(OUT)/chosen/rate
	for start in $(dir $(wordlist 1,2,$^)); do for gamma in $(GRADIENT_GAMMAS); do \
	    $(one-step) --device $(DEVICE) --aux vcl:$(call point,$(K),$$gamma,$(WINDOW))$(,)sign=spread --force -o $(OUT)/one-step | \
	        jq -c --arg start $$(basename $$start) '$(told-of-step)'; \
	done; done > $@.part
	rm -rf $(OUT)/one-step
	mv $@.part $@

# Learned system messages of the plain models, from the same prompts: asked, answered, judged, learned.
$(OUT)/steer/dro-asked.jsonl: $(OUT)/bench/harmful.all $(OUT)/bench/harmless.all | $(OUT)/steer/
	dro-train prompts --harmful $< --harmless $(word 2,$^) $(DRO_PROMPTS) --force -o $@
$(OUT)/steer/dro-%.answers: $(OUT)/models/%/config.json $(OUT)/steer/dro-asked.jsonl
	lm-gen --model $(<D) --device $(DEVICE) --max-new-tokens $(NEW_TOKENS) $(GENERATE) $(DRO_SAMPLES) --force -o $@ $(word 2,$^)
$(OUT)/steer/dro-%.verdicts: $(OUT)/steer/dro-%.answers
	refusal-eval judge $(DRO_JUDGE) $< --force -o $@
$(OUT)/steer/dro-%.safetensors: $(OUT)/models/%/config.json $(OUT)/steer/dro-%.answers $(OUT)/steer/dro-%.verdicts
	dro-train learn --model $(<D) --device $(DEVICE) $(DRO_LEARN) --verdicts $(word 3,$^) --force -o $@ $(word 2,$^) > $(@:safetensors=jsonl)

plan: $(GENERAL) $(SAFETY) $(HELD_OUT) $(OUT)/prompts.jsonl $(START)/config.json

# What the write-up is made from, in one archive: the records of every run, without texts that were asked, beside those that were published before. A
# run whose geometry or skill was not taken has a summary of the rest.
WRITE_UP := ../../docs/replication
PUBLISHED := summaries settings refusals pairs verdicts geometry develop chosen entropy metrics scored paths stability.jsonl borders.jsonl gradients.jsonl claims.jsonl
# Of a path, what claim 6 reads.
told-of-path := select(.type == "trajectory" and .id and .component == "1") | \
    {type, id, component, basis, layer_index: [], projection: [], center3: [], smoothness_ratio}
.PHONY: publish
publish: $(OUT)/claims.jsonl
	rm -rf $(OUT)/published
	mkdir -p $(OUT)/published/metrics $(OUT)/published/summaries
	[ ! -e $(WRITE_UP)/records.tar.zst ] || zstd -q -d -c $(WRITE_UP)/records.tar.zst | tar -x -C $(OUT)/published
	for run in $(notdir $(wildcard $(OUT)/models/*)); do cp $(OUT)/models/$$run/metrics.jsonl $(OUT)/published/metrics/$$run.jsonl; done
	for rate in $(RATES); do cp $(OUT)/rate/$$rate/metrics.jsonl $(OUT)/published/metrics/$$rate.jsonl; done
	cd $(OUT) && cp -r --parents $$(ls -d $(filter-out metrics scored paths,$(PUBLISHED)) 2> /dev/null) published
	rm -f $(OUT)/published/*/*.answers* $(OUT)/published/*/*.run.json
	mkdir -p $(OUT)/published/scored $(OUT)/published/paths
	for file in $(OUT)/scored/*.jsonl; do jq -c 'select(.type == "completion") | {type, id, log_prob, token_count}' $$file > $(OUT)/published/scored/$${file##*/}; done
	for file in $(wildcard $(OUT)/paths/*.jsonl); do jq -c '$(told-of-path)' $$file > $(OUT)/published/paths/$${file##*/}; done
	jq -c 'del(.prompt)' $(OUT)/prompts.jsonl > $(OUT)/published/prompts.jsonl
	cd $(OUT)/published; for file in refusals/*; do run=$${file#refusals/}; [ ! -e metrics/$$run ] || [ -e summaries/$$run ] || \
	    report summary --settings settings/$${run%l} --metrics metrics/$$run --refusals $$file \
	        $$(for what in geometry pairs; do [ ! -e $$what/$$run ] || echo --$$what $$what/$$run; done) > summaries/$$run; done
	tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C $(OUT)/published -c . | zstd -q -19 -f -o $(WRITE_UP)/records.tar.zst

# A table of several seeds that stands apart: of every run that was judged its settings, its steps, its report and the verdicts of the built-in judge, and
# the borders of a model if they were taken, beside those that were published before.
.PHONY: publish-seeds
publish-seeds:
	rm -rf $(OUT)/seeds && mkdir -p $(OUT)/seeds/metrics $(OUT)/seeds/refusals $(OUT)/seeds/verdicts
	[ ! -e $(WRITE_UP)/seeds.tar.zst ] || zstd -q -d -c $(WRITE_UP)/seeds.tar.zst | tar -x -C $(OUT)/seeds
	for file in $(OUT)/refusals/*.jsonl; do \
	    run=$$(basename $$file .jsonl); \
	    cp $(OUT)/models/$$run/metrics.jsonl $(OUT)/seeds/metrics/$$run.jsonl; \
	    jq -c 'select(.judge == "flowlens")' $$file > $(OUT)/seeds/refusals/$$run.jsonl; \
	    jq -c 'select(.judge == "flowlens") | {type, id, bench, label: .label, judge, verdict}' $(OUT)/verdicts/$$run.jsonl > $(OUT)/seeds/verdicts/$$run.jsonl; \
	    jq -c . $(OUT)/settings/$$run.json >> $(OUT)/seeds/settings.jsonl; \
	done
	[ ! -e $(OUT)/borders.jsonl ] || cp $(OUT)/borders.jsonl $(OUT)/seeds
	sort -u -o $(OUT)/seeds/settings.jsonl $(OUT)/seeds/settings.jsonl
	tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C $(OUT)/seeds -c . | zstd -q -19 -f -o $(WRITE_UP)/seeds.tar.zst
