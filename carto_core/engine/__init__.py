"""How it is trained: the loop, snapshots, checkpoints, devices. Knows a Task, a Plan and a Recorder; no database."""
