# Two commands for a newcomer: `make quickstart` and `make test`. Every target that needs the virtual environment makes it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA := data/quickstart
RUN := outputs/quickstart
RESULTS := $(RUN)/results/checkpoint_epoch_6/val

.PHONY: quickstart evidence evidence-batch16 evidence16 real twins test test-slow lint environment clean

environment: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-dev.txt
	@echo "installing into $(VENV): PyTorch is large, this takes some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.txt -r requirements-dev.txt
	@touch $@

quickstart: environment
	$(BIN)/python tools/make_synthetic_kitti.py --out $(DATA) --train 600 --val 100 --size 640x192 --force
	$(BIN)/python make_obj_depth.py --dataroot $(DATA)
	rm -rf $(RUN).old
	$(BIN)/python tools/train_val.py --config experiments/quickstart/quickstart.yaml --overwrite
	$(BIN)/python tools/visualize.py --dataroot $(DATA) --results $(RESULTS)/data --out $(RUN)/images --min-score 0.2
	@echo
	@echo "AP:                           $(RESULTS)/ap.json and $(RUN)/train.log"
	@echo "all of the run on one page:   $(RUN)/report.html"
	@echo "losses by epoch:              $(RUN)/curves.png and $(RUN)/metrics.jsonl"
	@echo "detections beside labels:     $(RUN)/images/"
	@echo "the rendered data set:        $(DATA)/"

# LAYOUTS: label files of real KITTI, with calib/ beside and ImageSets/ two folders up; JOBS: runs at a time
LAYOUTS ?= data/KITTI/training/label_2
JOBS ?= 2

COMPARE := $(BIN)/python tools/compare.py --config experiments/evidence/base.yaml

data/evidence/ImageSets/trainval.txt: | environment
	$(BIN)/python tools/make_synthetic_kitti.py --out data/evidence --train 1800 --val 750 --size 640x192 \
	    --layouts $(LAYOUTS) --force

evidence: data/evidence/ImageSets/trainval.txt
	$(COMPARE) --out runs/evidence --seeds 3 --jobs $(JOBS) --arms monodle qi obj_depth ddml ddml_corrected

evidence-batch16: data/evidence/ImageSets/trainval.txt
	$(COMPARE) --out runs/evidence_batch16 --seeds 3 --jobs $(JOBS) --arms monodle qi ddml ddml_corrected \
	    --set dataset.batch_size=16

# The experiment of experiments/evidence/plan.md, whose frames "final" nothing else uses; SEEDS: those of this machine.
# Tables are not shown: the plan says when they are read.
SEEDS ?= 16
FINAL := data/evidence16_final
SMALL := --size 640x192 --force

data/evidence16/ImageSets/final.txt: | environment
	$(BIN)/python tools/make_synthetic_kitti.py --out data/evidence16_pretrain --train 2400 --val 100 --seed 5 $(SMALL)
	$(BIN)/python tools/make_synthetic_kitti.py --out data/evidence16 --train 3712 --val 750 --layouts $(LAYOUTS) $(SMALL)
	$(BIN)/python tools/make_synthetic_kitti.py --out $(FINAL) --train 0 --val 2750 --seed 1 --layouts $(LAYOUTS) $(SMALL)
	tail -n 2000 $(FINAL)/ImageSets/val.txt > $(FINAL)/final.txt
	while read -r id; do for part in image_2 label_2 calib; do \
	    mv $(FINAL)/training/$$part/$$id.* data/evidence16/training/$$part/ || exit 1; done; done < $(FINAL)/final.txt
	mv $(FINAL)/final.txt $@

evidence16: data/evidence16/ImageSets/final.txt
	OMP_NUM_THREADS=1 $(BIN)/python tools/train_val.py --config experiments/evidence/pretrain.yaml --resume
	$(BIN)/python tools/compare.py --config experiments/evidence/batch16.yaml --out runs/evidence16 --seeds $(SEEDS) \
	    --jobs $(JOBS) --bootstrap 0 --arms monodle qi obj_depth ddml ddml_corrected ddml_scaled >/dev/null
	$(BIN)/python tools/bench/evidence.py collect runs/evidence16 --seeds $(SEEDS)

# The experiment on real frames of docs/evidence.md; needs KITTI in data/KITTI
data/rendered/ImageSets/trainval.txt: | environment
	$(BIN)/python tools/make_synthetic_kitti.py --out data/rendered --train 3712 --val 100 --size 640x192 \
	    --layouts $(LAYOUTS) --force

REAL := $(BIN)/python tools/compare.py --config experiments/real/base.yaml --jobs $(JOBS)

real: data/rendered/ImageSets/trainval.txt
	$(BIN)/python tools/train_val.py --config experiments/real/pretrain.yaml --resume
	$(REAL) --out runs/real_recipes --seeds 3 --arms-file experiments/real/arms.yaml \
	    --arms pretrained pretrained_jitter scratch
	$(REAL) --out runs/real --seeds 5 --arms monodle qi obj_depth ddml ddml_corrected

# The training of docs/fidelity.md that was also made with the official code; needs KITTI in data/KITTI
twins: environment
	$(BIN)/python tools/compare.py --config experiments/real/twins.yaml --out runs/twins --arms ddml --seeds 4 --jobs $(JOBS)
	$(BIN)/python tools/bench/twins.py runs/twins/outputs/ddml_seed? --out runs/twins

test: environment
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test-slow: environment
	$(BIN)/python -m pytest -m slow

lint: environment
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(DATA) $(RUN) $(RUN).old
