"""The papers' own figures and planner, reproduced for comparison."""
