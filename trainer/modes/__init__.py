"""What `--mode` can be: a module each; `trainer.settings.modes` names them."""
