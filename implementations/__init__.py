"""The entrants that come with the project, one file each; importing this package imports none of them.

To add one, copy the file nearest in kind, change the two functions in it that hold the loss, and give the record a new
name: discovery imports every module here whose name has no leading underscore and collects each `Implementation`.
A file holds

* `label_loss(logits, label)`: `(*N, C)` and `(*N)` to `(*N)`, what each row loses for its label: the entrant itself;
* `class_losses(logits)`: `(*N, C)` to `(*N, C)`, what each row would lose for every class: needed only where a target
  spreads over the classes (label smoothing, probabilities);
* the decorated function with the signature of `torch.nn.functional.cross_entropy`, which hands both to
  `_options.with_options`, where weights, ignored rows and reductions are written once.
"""
