"""Experiment trackers: what training and blending tell, in TensorBoard, MLflow, Weights & Biases or trackio.

`[log] to` of the experiment file names them. A file here has one function, which opens a run of a tracker (`Start` ->
`Opened`); `TRACKERS` lists them. What a tracker was sent is kept in the run, in `.trackers/NAME.json`, so that a later
command goes on in the same run of the tracker, sends what is missing there, and nothing twice. Each tracker works in a
thread of its own: one that fails, or doesn't answer, costs a line.

`listener.tracked` joins training, `results` sends what comes after it. Nothing is imported here: a run without trackers
loads none of this.
"""
