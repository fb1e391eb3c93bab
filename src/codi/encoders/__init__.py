"""Prompt encoders C_m and environment encoders V_m (CoDi, sections 3.2 and 3.4)."""
