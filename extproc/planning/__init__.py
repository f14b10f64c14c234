"""The planner's shell: files, commands, progress and reports around `extproc.planner`."""
