"""A run file for the tests, whose numbers stay as they are when the packaged one is tuned."""

RUN = """
name = "shapes"
seed = 0

[domain]
kind = "shapes"
generator = "embedded:shapes-vae"
clip = "embedded:shapes-clip"
cutouts = 0

[objective]
positive = "a regular square or a triangle"
negative = "splatters of colors"
norm_penalty = 0.0
uniqueness = 0.0


[[measures]]
name = "colour"
positive = "a red shape"
negative = "a blue shape"
range = [-0.1, 0.1]
cells = 50

[[measures]]
name = "shape"
positive = "a triangle with 3 edges"
negative = "a square or diamond with 4 edges"
range = [-0.1, 0.1]
cells = 50

[archive]
qd_score_offset = 0.0

[search]
algorithm = "cma_maega"
evaluations = 20000
emitters = 8
branches = 3
sigma0 = 0.5
step_size = 0.5
restart = "basic"
start_batches = 32
start_batch_size = 16
chunk = 25

[dataset]
images = 1000
label = "shape"
bins = [4, 4]
shard_size = 500

[repair]
image_size = 32
biases = [0.98, 0.95, 0.90, 0.85, 0.80]
seeds = 5
train_images = 1000
train_epochs = 20
repair_epochs = 30
test_images = 5000
"""
