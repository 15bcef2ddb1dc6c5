#!/usr/bin/env python3
"""Describe a picture with libmmq and nothing but ctypes: describe.py MODEL IMAGE PROMPT MAX_NEW_TOKENS"""
import ctypes as c
import sys


class Prompt(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("messages", c.c_void_p), ("n_messages", c.c_size_t),
                ("text", c.c_char_p), ("images", c.POINTER(c.c_void_p)), ("n_images", c.c_size_t)]


class Request(c.Structure):  # as far as it is used: what is left out is default
    _fields_ = [("struct_size", c.c_size_t), ("prompt", c.POINTER(Prompt)), ("max_new_tokens", c.c_int32),
                ("temperature", c.c_float)]


def make(function, *arguments):
    handle = c.c_void_p()
    if function(c.byref(handle), *arguments) != 0:
        sys.exit(mmq.mmq_last_error_message().decode())
    return handle


mmq = c.CDLL("libmmq.so.0")
mmq.mmq_last_error_message.restype = mmq.mmq_result_text.restype = c.c_char_p
path, picture, text, n_tokens = (argument.encode() for argument in sys.argv[1:])
session = make(mmq.mmq_session_create, make(mmq.mmq_load, path, None), None)
images = (c.c_void_p * 1)(make(mmq.mmq_image_read_file, picture, None))
prompt = Prompt(c.sizeof(Prompt), None, 0, text, images, 1)
result = make(mmq.mmq_generate, session, c.byref(Request(c.sizeof(Request), c.pointer(prompt), int(n_tokens))))
print(mmq.mmq_result_text(result).decode())
